"""What `status` shows: the list of jobs, and one job in full. Pure, as `view` is."""

from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_cli.sections import (
    age,
    conditions,
    cost_words,
    fields,
    how_it_goes,
    name_and_phase,
    page_of,
    short,
    where_it_is,
    why,
)
from finetune_cli.view import (
    duration,
    evaluation_table,
    last_line,
    phase_text,
    plain_table,
    text,
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
            age(part(job, "metadata").get("creationTimestamp"), now),
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
            cost_words(cost) if cost else "",
            short(part(status, "artifact").get("digest")),
        )
    ]


def job_page(job: Object, now: datetime) -> RenderableType:
    """Everything that the status tells, in the order in which a person asks."""
    sections: list[tuple[str, RenderableType | None]] = [
        ("Attempts", _attempts(job)),
        ("Evaluation", evaluation_table(job) if facts.items(job, "status", "evaluation") else None),
        ("Gate", _gate(job)),
        ("Artifact", _artifact(job)),
        ("Conditions", conditions(job, now)),
        ("Why it failed", why(job)),
    ]
    return page_of(_summary(job, now), sections)


def result(job: Object) -> RenderableType:
    """What came of a job that is ready."""
    parts = [evaluation_table(job) if facts.items(job, "status", "evaluation") else None, _gate(job), _artifact(job)]
    return Group(*(one for one in parts if one))


def _summary(job: Object, now: datetime) -> Table:
    status, spec = part(job, "status"), part(job, "spec")
    run = part(status, "run")
    table = fields()
    name_and_phase(table, "Job", job)
    adapter = part(spec, "adapter")
    trains = "every weight" if adapter.get("type") == "None" else f"LoRA rank {adapter.get('rank', '?')}"
    dataset = part(spec, "dataset").get("name", "?")
    table.add_row("Trains", text(f"{trains} by {spec.get('method', '?')} on dataset {dataset}"))
    if run:
        started = age(run.get("startedAt"), now)
        table.add_row("Run", text(f"{run.get('number')}, started {started} ago, key {str(run.get('key'))[:16]}"))
    how_it_goes(table, job, now)
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
    table = fields()
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
    table = fields()
    table.add_row("Type", text(f"{artifact.get('type')}, {_size(artifact.get('bytes') or 0)}"))
    where_it_is(table, artifact, job)
    return table


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
