"""How a FineTuneJob or BatchInference looks: raw resources in, rich renderables and plain lines out. No I/O.

Words from a cluster are data: they become `Text` without control characters, never markup.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_contract.evaluating import TUNED, Metric, clearly_better

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 24
"""Characters of a sparkline; more losses than this are averaged in groups."""

STYLES = {
    "Succeeded": "green",
    "Failed": "red",
    "GateFailed": "red",
    "Invalid": "red",
    "Training": "cyan",
    "Evaluating": "cyan",
    "Answering": "cyan",
}
"""Phases with a colour of their own."""

METRICS = {metric.value: metric for metric in Metric}
"""Those that this release knows."""


class JobBar:
    """A job's progress as it goes, with the losses it has shown: give it to `rich.live.Live`."""

    def __init__(self, job: Object) -> None:
        self._losses: dict[int, float] = {}
        self._run: object = None
        self.update(job)

    def update(self, job: Object) -> None:
        """Take the job's newest state; steps that an attempt will repeat, and another run's, are forgotten."""
        self._job = job
        progress = part(job, "status", "progress")
        run = part(job, "status", "run").get("key")
        if run != self._run:
            self._run, self._losses = run, {}
        loss = facts.finite(progress.get("loss"))
        if loss is not None and facts.phase(job) != "Succeeded":
            step = int(progress.get("step") or 0)
            self._losses = {seen: known for seen, known in self._losses.items() if seen < step} | {step: loss}

    def __rich__(self) -> RenderableType:
        return render_progress(self._job, list(self._losses.values()))


def render_progress(job: Object, losses: Sequence[float] = (), now: datetime | None = None) -> RenderableType:
    """Two lines: name, phase and bar; below them what is measured, or what is waited for."""
    progress = part(job, "status", "progress")
    done, total = _done(progress)
    share = _percent(progress)
    completed = done if total else share
    bar = ProgressBar(total=total or 100, completed=completed, complete_style="cyan", finished_style="green")
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(text(facts.name_of(job), "bold"), phase_text(job), bar, f"{share}%", _steps(progress))
    return Group(line, text(_below(job, now or datetime.now(UTC), sparkline(losses)), "dim"))


def progress_line(job: Object, now: datetime | None = None) -> str:
    """One plain line for logs and CI: `namer  Training  42%  step 126/300  loss 0.412  ...`."""
    progress = part(job, "status", "progress")
    words = [facts.name_of(job), facts.phase(job)]
    if progress:
        words += [f"{_percent(progress)}%", _steps(progress)]
    words.append(_below(job, now or datetime.now(UTC)))
    return clean("  ".join(word for word in words if word))


def _percent(progress: Object) -> int:
    return int(progress.get("percent") or 0)


def _steps(progress: Object) -> str:
    done, total = _done(progress)
    if not total:
        return ""
    return f"step {done:,}/{total:,}" if progress.get("totalSteps") else f"{done:,}/{total:,} rows"


def _done(progress: Object) -> tuple[int, int]:
    """Steps of a job or rows of a batch: those that are done, and all; 0 where they are not known yet."""
    if total := progress.get("totalSteps"):
        return int(progress.get("step") or 0), int(total)
    return int(progress.get("rows") or 0), int(progress.get("totalRows") or 0)


def _below(job: Object, now: datetime, spark: str = "") -> str:
    """What is measured while an attempt runs and when it has succeeded, else what is waited for."""
    return "  ".join(_measurements(job, now, spark)) if has_measurements(job) else waiting_for(job)


def has_measurements(job: Object) -> bool:
    """Whether the numbers in its progress are about now."""
    return bool(part(job, "status", "progress")) and (facts.holds(job, "Running") or facts.succeeded(job))


def _measurements(job: Object, now: datetime, spark: str) -> list[str]:
    """Loss, rows that failed, speed, time left and attempt, as far as they are known."""
    progress = part(job, "status", "progress")
    words = []
    if (loss := facts.finite(progress.get("loss"))) is not None:
        words.append(f"loss {loss:.4g} {spark}".rstrip())
    if failed := progress.get("failed"):
        words.append(f"{failed:,} failed")
    if (speed := facts.finite(progress.get("tokensPerSecond"))) is not None:
        words.append(f"{speed:,.0f} tokens/s")
    if left := facts.time_left(job, now):
        words.append(f"ETA {duration(left)}")
    if number := facts.attempt(job):
        resumed = progress.get("resumedFromStep")
        words.append(f"attempt {number}" + (f" (resumed from step {resumed:,})" if resumed else ""))
    return words


def waiting_for(job: Object) -> str:
    """Why there is no progress to show, in the operator's words."""
    ready = facts.condition(job, "Ready")
    return last_line(ready.get("message")) or clean(ready.get("reason") or "waiting for the operator to see it")


def sparkline(losses: Sequence[float], width: int = SPARKLINE_WIDTH) -> str:
    """The losses, oldest first, as at most `width` block characters between their lowest and highest."""
    if len(losses) > width:
        edges = [index * len(losses) // width for index in range(width + 1)]
        groups = [losses[start:end] for start, end in pairwise(edges)]
        losses = [sum(group) / len(group) for group in groups]
    if not losses:
        return ""
    low, high = min(losses), max(losses)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0
    return "".join(BLOCKS[round((loss - low) * scale)] for loss in losses)


def evaluation_table(job: Object) -> Table:
    """Systems by metrics, each with its 95 % interval; bold is what is better beyond doubt."""
    scores = facts.items(job, "status", "evaluation")
    metrics = list(dict.fromkeys(str(score.get("metric")) for score in scores))
    by_key = {(str(score.get("system")), str(score.get("metric"))): score for score in scores}
    table = plain_table("SYSTEM", *(f"{metric} (95 % interval)" for metric in metrics), "ROWS")
    for system in dict.fromkeys(str(score.get("system")) for score in scores):
        cells = [_score_cell(by_key.get((system, metric), {}), metric, scores) for metric in metrics]
        rows = max(int(score.get("rows") or 0) for score in scores if str(score.get("system")) == system)
        table.add_row(text(system), *cells, str(rows))
    return table


def _score_cell(score: Object, metric: str, scores: list[Object]) -> Text:
    value = facts.finite(score.get("value"))
    if value is None:
        return text("-")
    baselines = {
        str(one.get("system")): (facts.finite(one.get("difference")), facts.finite(one.get("pValue")))
        for one in scores
        if one.get("metric") == metric and one.get("system") != TUNED
    }
    is_better = metric in METRICS and str(score.get("system")) in clearly_better(METRICS[metric], baselines)
    return text(f"{value:.3f}{interval(score)}", "bold green" if is_better else "")


def interval(score: Object, low: str = "low", high: str = "high", form: str = ".3f") -> str:
    """` [0.400, 0.600]`; empty where an end is not known."""
    ends = facts.finite(score.get(low)), facts.finite(score.get(high))
    return f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends[0] is not None and ends[1] is not None else ""


def phase_text(job: Object) -> Text:
    """The phase in its colour."""
    return text(facts.phase(job), STYLES.get(facts.phase(job), "yellow"))


def plain_table(*headers: str) -> Table:
    """A table as kubectl draws it: no lines, so that it reads the same in a pipe."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", show_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def duration(span: timedelta) -> str:
    """In its two largest units: 45s, 3m20s, 2h5m, 4d3h."""
    return duration_of(span.total_seconds())


def duration_of(seconds: float) -> str:
    """As `duration`, of seconds."""
    seconds = round(seconds)
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            rest = seconds % size // next_size
            return f"{seconds // size}{unit}" + (f"{rest}{next_unit}" if rest else "")
    return f"{seconds}s"


def last_line(message: object) -> str:
    """What a message comes to: of a traceback, its last line."""
    lines = [line for line in str(message or "").splitlines() if line.strip()]
    return clean(lines[-1].strip()) if lines else ""


def clean(words: object) -> str:
    """On one line and without control characters: a message must not steer the terminal."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in str(words)).rstrip()


def text(words: object, style: str = "") -> Text:
    """Words from a cluster as rich text."""
    return Text(clean(words), style=style)
