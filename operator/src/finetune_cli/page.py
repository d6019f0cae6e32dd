"""What `status` shows: the list of jobs, and one job in full. Pure, as `view` is."""

from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_cli.view import (
    clean,
    duration,
    evaluation_table,
    has_measurements,
    last_line,
    phase_text,
    plain_table,
    progress_line,
    text,
    waiting_for,
)


def jobs_table(jobs: list[Object], now: datetime, *, wide: bool = False) -> Table:
    """One line per job, by name; a wide one tells, too, what is trained, where it waits and what came of it."""
    table = plain_table("NAME", "PHASE", "PROGRESS", "LOSS", "ATTEMPT", "REASON", "AGE", *(_WIDE if wide else ()))
    for job in sorted(jobs, key=facts.name_of):
        loss = facts.finite(part(job, "status", "progress").get("loss"))
        table.add_row(
            text(facts.name_of(job)),
            phase_text(job),
            text(part(job, "status").get("progressPercent") or "-"),
            "-" if loss is None else f"{loss:.4g}",
            str(facts.attempt(job) or "-"),
            text(facts.condition(job, "Ready").get("reason") or "-"),
            _age(part(job, "metadata").get("creationTimestamp"), now),
            *(_wide(job) if wide else ()),
        )
    return table


_WIDE = ("METHOD", "DATASET", "QUEUE", "GATE", "COST", "ARTIFACT")


def _wide(job: Object) -> list[Text]:
    spec, status = part(job, "spec"), part(job, "status")
    cost = part(status, "cost")
    return [
        text(words or "-")
        for words in (
            spec.get("method") or "SFT",
            part(spec, "dataset").get("name"),
            facts.queue_place(job) or part(spec, "scheduling").get("queueName"),
            part(status, "gate").get("verdict"),
            _cost(cost) if cost else "",
            str(part(status, "artifact").get("digest") or "").removeprefix("sha256:")[:12],
        )
    ]


def job_page(job: Object, now: datetime) -> RenderableType:
    """Everything that the status tells, in the order in which a person asks."""
    sections: list[tuple[str, RenderableType | None]] = [
        ("Attempts", _attempts(job)),
        ("Evaluation", evaluation_table(job) if facts.items(job, "status", "evaluation") else None),
        ("Gate", _gate(job)),
        ("Artifact", _artifact(job)),
        ("Conditions", _conditions(job, now)),
        ("Why it failed", _why(job)),
    ]
    page: list[RenderableType] = [_summary(job, now)]
    for title, body in sections:
        if body is not None:
            page += ["", Text(title, style="bold"), Padding(body, (0, 0, 0, 2), expand=False)]
    return Group(*page)


def result(job: Object) -> RenderableType:
    """What came of a job that is ready."""
    parts = [evaluation_table(job) if facts.items(job, "status", "evaluation") else None, _gate(job), _artifact(job)]
    return Group(*(one for one in parts if one))


def _summary(job: Object, now: datetime) -> Table:
    status, spec = part(job, "status"), part(job, "spec")
    run = part(status, "run")
    table = _fields()
    table.add_row("Job", text(f"{part(job, 'metadata').get('namespace', '')}/{facts.name_of(job)}", "bold"))
    table.add_row("Phase", phase_text(job) + text("" if facts.is_current(job) else "  (of the spec before an edit)"))
    adapter = part(spec, "adapter")
    trains = "every weight" if adapter.get("type") == "None" else f"LoRA rank {adapter.get('rank', '?')}"
    dataset = part(spec, "dataset").get("name", "?")
    table.add_row("Trains", text(f"{trains} by {spec.get('method', '?')} on dataset {dataset}"))
    if run:
        started = _age(run.get("startedAt"), now)
        table.add_row("Run", text(f"{run.get('number')}, started {started} ago, key {str(run.get('key'))[:16]}"))
    if has_measurements(job):
        line = progress_line(job, now).removeprefix(f"{facts.name_of(job)}  {facts.phase(job)}  ")
        table.add_row("Progress", text(line))
    else:
        table.add_row("Because", text(waiting_for(job)))
    if cost := part(status, "cost"):
        table.add_row("Cost", text(_cost(cost)))
    if used := status.get("retriesUsed"):
        limit = part(spec, "retries").get("limit", used)
        table.add_row("Retries", text(f"{min(used, limit)} of {limit} used"))
    return table


def _cost(cost: Object) -> str:
    hours, lost = (facts.finite(cost.get(name)) or 0.0 for name in ("gpuHours", "lostGpuHours"))
    words = f"{_hours(hours)} GPU-hours" + (f", {_hours(lost)} of them lost" if lost else "")
    amount = facts.finite(cost.get("amount"))
    return words if amount is None else f"{words}: {amount:,.2f} {cost.get('currency') or ''}".rstrip()


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 1 else f"{hours:.2g}"


def _fields() -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _attempts(job: Object) -> Table | None:
    attempts = facts.items(job, "status", "attempts")
    if not attempts:
        return None
    table = plain_table("#", "REASON", "STEP", "RESUMED FROM", "TIME", "NODE", "MESSAGE")
    for attempt in attempts:
        reason = str(attempt.get("reason"))
        table.add_row(
            str(attempt.get("number")),
            text(reason, "green" if reason == "Succeeded" else "red"),
            f"{attempt.get('step') or 0:,}",
            f"{attempt['resumedFromStep']:,}" if attempt.get("resumedFromStep") else "-",
            duration(timedelta(seconds=attempt.get("seconds") or 0)),
            text(attempt.get("node") or "-"),
            text(last_line(attempt.get("message")) or "-"),
        )
    return table


MARKS = {"Passed": ("✓", "green"), "Failed": ("✗", "red"), "Skipped": ("-", "dim")}


def _gate(job: Object) -> Table | None:
    """Rule by rule what the gate decided about the present run's artifact; and which that is, if it did not pass."""
    gate = part(job, "status", "gate")
    if not gate or not facts.condition(job, "GatePassed"):
        return None
    table = _fields()
    for rule in facts.items(gate, "rules"):
        mark, style = MARKS.get(str(rule.get("outcome")), ("?", ""))
        table.add_row(Text(mark, style=style), text(rule.get("message")))
    if gate.get("verdict") == "Failed":
        made = [part(record, "artifact") for record in facts.items(job, "status", "runs")]
        address = next((one.get("uri") for one in made if one.get("digest") == gate.get("digest")), "")
        table.add_row("", text(f"kept, not served: {gate.get('digest')} {address}"))
    return table


def _artifact(job: Object) -> Table | None:
    artifact = part(job, "status", "artifact")
    if not artifact:
        return None
    table = _fields()
    table.add_row("Type", text(f"{artifact.get('type')}, {_size(artifact.get('bytes') or 0)}"))
    table.add_row("Digest", text(artifact.get("digest")))
    table.add_row("Address", text(artifact.get("uri")))
    if artifact.get("run") != part(job, "status", "run").get("key"):
        table.add_row("Run", text(f"key {str(artifact.get('run'))[:16]}: an earlier one"))
    return table


def _conditions(job: Object, now: datetime) -> Table | None:
    conditions = facts.items(job, "status", "conditions")
    if not conditions:
        return None
    table = plain_table("TYPE", "STATUS", "REASON", "AGE", "MESSAGE")
    said: dict[str, str] = {}
    for one in conditions:
        message, kind = last_line(one.get("message")), str(one.get("type"))
        first = said.setdefault(message, kind)
        table.add_row(
            text(kind),
            text(one.get("status")),
            text(one.get("reason")),
            _age(one.get("lastTransitionTime"), now),
            text(message if first == kind or not message else f"as {first}"),
        )
    return table


def _why(job: Object) -> Text | None:
    """The whole message, when the tables could only show its last line."""
    lines = str(facts.failure(job).get("message") or "").splitlines()
    return Text("\n".join(map(clean, lines))) if len(lines) > 1 else None


def _age(value: object, now: datetime) -> str:
    span = facts.age(value, now)
    return "-" if span is None else duration(span)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
