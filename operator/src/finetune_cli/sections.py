"""Parts of a page that jobs and batches have in common. Pure, as `view` is."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_cli.view import (
    clean,
    duration,
    has_measurements,
    last_line,
    phase_text,
    plain_table,
    progress_line,
    text,
    waiting_for,
)


def page_of(summary: Table, sections: list[tuple[str, RenderableType | None]]) -> RenderableType:
    """The summary, then each section that has something to say under its title."""
    page: list[RenderableType] = [summary]
    for title, body in sections:
        if body is not None:
            page += ["", Text(title, style="bold"), Padding(body, (0, 0, 0, 2), expand=False)]
    return Group(*page)


def name_and_phase(table: Table, title: str, found: Object) -> None:
    """The first two rows of a summary."""
    table.add_row(title, text(f"{part(found, 'metadata').get('namespace', '')}/{facts.name_of(found)}", "bold"))
    table.add_row(
        "Phase", phase_text(found) + text("" if facts.is_current(found) else "  (of the spec before an edit)")
    )


def how_it_goes(table: Table, found: Object, now: datetime) -> None:
    """The last rows: how far it is, or why it is not; what it cost and how often it was tried again, if at all."""
    if has_measurements(found):
        line = progress_line(found, now).removeprefix(f"{facts.name_of(found)}  {facts.phase(found)}  ")
        table.add_row("Progress", text(line))
    else:
        table.add_row("Because", text(waiting_for(found)))
    status = part(found, "status")
    if cost := part(status, "cost"):
        table.add_row("Cost", text(cost_words(cost)))
    if used := status.get("retriesUsed"):
        limit = part(found, "spec", "retries").get("limit", used)
        table.add_row("Retries", text(f"{min(used, limit)} of {limit} used"))


def where_it_is(table: Table, made: Object, found: Object) -> None:
    """The last rows about what a run has made: digest, address, and the run if it is not the present one."""
    table.add_row("Digest", text(made.get("digest")))
    table.add_row("Address", text(made.get("uri")))
    if made.get("run") != part(found, "status", "run").get("key"):
        table.add_row("Run", text(f"key {str(made.get('run'))[:16]}: an earlier one"))


def cost_words(cost: Object) -> str:
    """Hours, those of them that were lost, and the price."""
    hours, lost = (facts.finite(cost.get(name)) or 0.0 for name in ("gpuHours", "lostGpuHours"))
    words = f"{_hours(hours)} GPU-hours" + (f", {_hours(lost)} of them lost" if lost else "")
    amount = facts.finite(cost.get("amount"))
    return words if amount is None else f"{words}: {amount:,.2f} {cost.get('currency') or ''}".rstrip()


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 1 else f"{hours:.2g}"


def fields() -> Table:
    """Names and values side by side."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def conditions(job: Object, now: datetime) -> Table | None:
    """All conditions; what was said before is not said again."""
    found = facts.items(job, "status", "conditions")
    if not found:
        return None
    table = plain_table("TYPE", "STATUS", "REASON", "AGE", "MESSAGE")
    said: dict[str, str] = {}
    for one in found:
        message, kind = last_line(one.get("message")), str(one.get("type"))
        first = said.setdefault(message, kind)
        table.add_row(
            text(kind),
            text(one.get("status")),
            text(one.get("reason")),
            age(one.get("lastTransitionTime"), now),
            text(message if first == kind or not message else f"as {first}"),
        )
    return table


def why(job: Object) -> Text | None:
    """The whole message, when the tables could only show its last line."""
    lines = str(facts.failure(job).get("message") or "").splitlines()
    return Text("\n".join(map(clean, lines))) if len(lines) > 1 else None


def short(digest: object) -> str:
    """Enough of a digest to tell it from others; empty where there is none."""
    return str(digest or "").removeprefix("sha256:")[:12]


def age(value: object, now: datetime) -> str:
    """How long ago a time was, for people."""
    span = facts.age(value, now)
    return "-" if span is None else duration(span)
