"""What `status` shows of BatchInferences: the list of them, and one in full. Pure, as `view` is."""

from datetime import datetime, timedelta

from rich.console import RenderableType
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
    last_line,
    phase_text,
    plain_table,
    text,
)

_WIDE = ("MODEL", "INPUT", "QUEUE", "TOKENS/S", "COST", "OUTPUT")


def batches_table(batches: list[Object], now: datetime, *, wide: bool = False) -> Table:
    """One line per batch, by name; a wide one tells, too, what is asked about what, how fast, and what came of it."""
    table = plain_table("BATCH", "PHASE", "PROGRESS", "ROWS", "FAILED", "ATTEMPT", "REASON", "AGE", *(_WIDE * wide))
    for batch in sorted(batches, key=facts.name_of):
        progress = part(batch, "status", "progress")
        table.add_row(
            text(facts.name_of(batch)),
            phase_text(batch),
            text(part(batch, "status").get("progressPercent") or "-"),
            f"{progress.get('rows') or 0:,}" if progress else "-",
            f"{progress.get('failed') or 0:,}" if progress else "-",
            str(facts.attempt(batch) or "-"),
            text(facts.condition(batch, "Ready").get("reason") or "-"),
            age(part(batch, "metadata").get("creationTimestamp"), now),
            *(_wide(batch) if wide else ()),
        )
    return table


def _wide(batch: Object) -> list[Text]:
    status = part(batch, "status")
    cost, output = part(status, "cost"), part(status, "output")
    speed = facts.finite(part(status, "progress").get("tokensPerSecond")) or facts.finite(output.get("tokensPerSecond"))
    return [
        text(words or "-")
        for words in (
            _model(batch),
            _input(batch),
            part(batch, "spec", "scheduling").get("queueName"),
            "" if speed is None else f"{speed:,.0f}",
            cost_words(cost) if cost else "",
            short(output.get("digest")),
        )
    ]


def batch_page(batch: Object, now: datetime) -> RenderableType:
    """Everything that the status tells, in the order in which a person asks."""
    return page_of(
        _summary(batch, now),
        [
            ("Attempts", _attempts(batch)),
            ("Output", _output(batch)),
            ("Conditions", conditions(batch, now)),
            ("Why it failed", why(batch)),
        ],
    )


def result(batch: Object) -> RenderableType:
    """What came of a batch that is ready."""
    return _output(batch) or Text()


def _summary(batch: Object, now: datetime) -> Table:
    run = part(batch, "status", "run")
    table = fields()
    name_and_phase(table, "Batch", batch)
    table.add_row("Asks", text(f"{_model(batch)} about {_input(batch)}"))
    if run:
        table.add_row("Run", text(f"started {age(run.get('startedAt'), now)} ago, key {str(run.get('key'))[:16]}"))
    how_it_goes(table, batch, now)
    return table


def _model(batch: Object) -> str:
    model = part(batch, "spec", "model")
    job = part(model, "fineTuneJob").get("name")
    return str(f"job {job}" if job else model.get("name") or "a base model")


def _input(batch: Object) -> str:
    dataset = part(batch, "spec", "input", "dataset")
    return f"{dataset.get('name')}/{dataset.get('split', 'test')}" if dataset else "JSONL"


def _attempts(batch: Object) -> Table | None:
    attempts = facts.items(batch, "status", "attempts")
    if not attempts:
        return None
    table = plain_table("RUN", "#", "REASON", "ROWS KEPT", "TIME", "NODE", "MESSAGE")
    for attempt in attempts:
        reason = str(attempt.get("reason"))
        table.add_row(
            # As the Job is called: attempts of earlier runs are in the list, too.
            text(str(attempt.get("run") or "")[:6]),
            str(attempt.get("number")),
            text(reason, "green" if reason == "Succeeded" else "red"),
            f"{attempt.get('rows') or 0:,}",
            duration(timedelta(seconds=attempt.get("seconds") or 0)),
            text(attempt.get("node") or "-"),
            text(last_line(attempt.get("message")) or "-"),
        )
    return table


def _output(batch: Object) -> Table | None:
    output = part(batch, "status", "output")
    if not output:
        return None
    table = fields()
    succeeded, failed, total = (int(output.get(name) or 0) for name in ("succeeded", "failed", "rows"))
    rows = f"{succeeded:,} of {total:,} answered, {failed:,} failed"
    codes = ", ".join(f"{one.get('code')} {one.get('rows') or 0:,}" for one in facts.items(output, "errors"))
    table.add_row("Rows", text(f"{rows} ({codes})" if codes else rows))
    tokens = f"{output.get('promptTokens') or 0:,} read, {output.get('generatedTokens') or 0:,} written"
    speed = facts.finite(output.get("tokensPerSecond"))
    table.add_row("Tokens", text(tokens if speed is None else f"{tokens}, {speed:,.0f} a second"))
    where_it_is(table, output, batch)
    return table
