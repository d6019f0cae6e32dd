"""Where rows went, as a picture: one stream that divides (a Sankey diagram of one step), in SVG."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from finetune_trainer.data.html import percent

_WIDTH, _HEIGHT = 900, 300
_LEFT, _RIGHT, _BAR = 120, 390, 14
_GAP = 12
_LEAST = 3.0
"""Height of the thinnest stream: one row of a million is seen, too."""
_LINE = 20.0
"""Height that a name needs."""


class Flow(NamedTuple):
    """A part of the rows."""

    name: str
    rows: int
    color: str
    note: str = ""


def flow(total: int, parts: Sequence[Flow]) -> str:
    """The rows that were read on the left, what became of them on the right."""
    parts = [part for part in parts if part.rows]
    scale = (_HEIGHT - _GAP * (len(parts) - 1)) / max(1, total)
    heights = [max(_LEAST, part.rows * scale) for part in parts]
    slots = [max(_LINE, height) for height in heights]
    height = max(_HEIGHT, sum(slots) + _GAP * (len(parts) - 1))
    left_height = sum(heights)
    left = top = (height - left_height) / 2
    pieces = [
        (
            f'<rect x="{_LEFT - _BAR}" y="{top:.1f}" width="{_BAR}" height="{left_height:.1f}" rx="2" '
            'fill="var(--ink-2)"/>'
            f'<text x="{_LEFT - _BAR - 10}" y="{height / 2 - 3:.1f}" text-anchor="end" class="big">{total:,}</text>'
            f'<text x="{_LEFT - _BAR - 10}" y="{height / 2 + 14:.1f}" text-anchor="end" class="tick">rows read</text>'
        )
    ]
    at = (height - sum(slots) - _GAP * (len(parts) - 1)) / 2
    for part, tall, slot in zip(parts, heights, slots, strict=True):
        right = at + (slot - tall) / 2
        pieces.append(_stream(part, left, right, tall, total))
        left += tall
        at += slot + _GAP
    return (
        f'<div class="scroll"><svg class="flow" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="what became of {total:,} rows">{"".join(pieces)}</svg></div>'
    )


def _stream(part: Flow, left: float, right: float, tall: float, total: int) -> str:
    middle = (_LEFT + _RIGHT) / 2
    path = (
        f"M{_LEFT},{left:.1f} C{middle},{left:.1f} {middle},{right:.1f} {_RIGHT},{right:.1f} "
        f"V{right + tall:.1f} C{middle},{right + tall:.1f} {middle},{left + tall:.1f} {_LEFT},{left + tall:.1f} Z"
    )
    share = percent(part.rows, total) if total else ""
    y = right + tall / 2 + 4.5
    return (
        f'<path d="{path}" fill="{part.color}" class="stream"><title>{part.rows:,} rows: {escape(part.name)}</title>'
        "</path>"
        f'<rect x="{_RIGHT}" y="{right:.1f}" width="{_BAR}" height="{tall:.1f}" rx="1.5" fill="{part.color}"/>'
        f'<text x="{_RIGHT + _BAR + 10}" y="{y:.1f}"><tspan class="name">{escape(part.name)}</tspan>'
        f'<tspan dx="8">{part.rows:,}</tspan><tspan dx="8" class="soft">{share}</tspan>'
        f'<tspan dx="10" class="soft">{escape(part.note)}</tspan></text>'
    )
