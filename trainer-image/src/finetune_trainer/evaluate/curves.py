"""The loss curves of a run as SVG that takes its colours from the page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 34
_MOST_POINTS = 400
"""Of one curve: more than the eye tells apart."""

Point = tuple[float, float]


def loss_curves(history: Iterable[Mapping[str, Any]]) -> str:
    """Training and validation loss over the steps; empty where nothing was logged.

    Args:
        history: transformers' `log_history`.
    """
    entries = list(history)
    curves = {
        "training": _points(entries, "loss"),
        "validation": _points(entries, "eval_loss"),
    }
    points = [point for curve in curves.values() for point in curve]
    if len(points) < 2:
        return ""
    last = max(step for step, _ in points) or 1
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def place(point: Point) -> str:
        x = _LEFT + point[0] / last * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - point[1]) / ((high - low) or 1) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss over the steps">']
    for tick in ticks:
        x, y = place((0, tick)).split(",")
        parts.append(f'<line class="grid" x1="{x}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{escape(f"{tick:.4g}")}</text>')
    # The last step is written out, and takes the place of round numbers that are near.
    for step in [each for each in _ticks(0, last) if each.is_integer() and each < 0.88 * last] + [last]:
        x = place((step, low)).split(",")[0]
        words, anchor = (f"step {step:,.0f}", "end") if step == last else (f"{step:,.0f}", "middle")
        parts.append(f'<text x="{x}" y="{_HEIGHT - 14}" text-anchor="{anchor}">{words}</text>')
    for name, curve in curves.items():
        if len(curve) > 1:
            parts.append(f'<polyline class="{name}" points="{" ".join(map(place, curve))}"/>')
        if len(curve) <= 40:
            for point in curve:
                x, y = place(point).split(",")
                title = f"{name} loss {point[1]:.4g} at step {point[0]:,.0f}"
                parts.append(f'<circle class="{name}" cx="{x}" cy="{y}" r="3"><title>{title}</title></circle>')
    return "".join([*parts, "</svg>"])


def _points(entries: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """What was logged under a key, thinned where it is a lot; a step that was done twice counts as done last."""
    found = {
        float(entry["step"]): float(entry[key])
        for entry in entries
        if isinstance(entry.get(key), int | float) and math.isfinite(entry[key]) and "step" in entry
    }
    points = sorted(found.items())
    each = math.ceil(len(points) / _MOST_POINTS) or 1
    return [*points[::each], *([points[-1]] if points and (len(points) - 1) % each else [])]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers around a range."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.floor(low / step)
    return [at * step for at in range(first, math.ceil(high / step) + 1)]
