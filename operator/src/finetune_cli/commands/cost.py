"""`cost`: what jobs and batches have used and what that comes to."""

from collections import defaultdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from finetune_cli import completion, facts
from finetune_cli.connecting import connect
from finetune_cli.facts import Object, part
from finetune_cli.kinds import RunKind
from finetune_cli.options import Context, Format, Namespace, Output, answer
from finetune_cli.view import plain_table, text


def cost(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Some by name; none: all jobs and batches.", autocompletion=completion.named),
    ] = None,
    kind: Annotated[RunKind, typer.Option("--kind", help="What the names are.")] = RunKind.JOB,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of every namespace, with a total for each.")
    ] = False,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show GPU-hours and their price, by job or batch and in all.

    A price is of the present run; GPU-hours of earlier runs, as far as the status remembers, are a column of
    their own. Prices are the platform's, of the time when the hours were used.
    """
    if names and everywhere:
        raise typer.BadParameter("names are of one namespace; leave --all-namespaces away, or the names")
    cluster = connect(context, namespace)
    if names:
        found = [cluster.objects.get(kind.plural, name) for name in names]
    else:
        found = [one for each in RunKind for one in cluster.objects.all_of(each.plural, everywhere=everywhere)]
    lines = sorted((line_of(one) for one in found), key=lambda line: (line["namespace"], line["name"], line["kind"]))
    if not lines and output in (Format.TABLE, Format.WIDE):
        where = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        typer.echo(f"No FineTuneJobs and no BatchInferences in {where}.", err=True)
        return
    answer(
        output,
        {
            "jobs": [line for line in lines if line["kind"] == RunKind.JOB],
            "batches": [line for line in lines if line["kind"] == RunKind.BATCH],
            "totals": totals(lines),
        },
        lambda: table_of(lines, everywhere=everywhere, wide=output is Format.WIDE),
    )


def line_of(found: Object) -> Object:
    """What a job or batch has used: hours, and amount where there is a price."""
    status = part(found, "status")
    spent = part(status, "cost")
    return {
        "namespace": str(part(found, "metadata").get("namespace") or ""),
        "kind": facts.kind_of(found).value,
        "name": facts.name_of(found),
        "phase": facts.phase(found),
        "attempts": facts.attempt(found),
        "gpuHours": facts.finite(spent.get("gpuHours")) or 0.0,
        "lostGpuHours": facts.finite(spent.get("lostGpuHours")) or 0.0,
        "earlierGpuHours": round(_earlier_seconds(found) / 3600, 6),
        "amount": facts.finite(spent.get("amount")),
        "currency": spent.get("currency"),
    }


def _earlier_seconds(found: Object) -> int:
    """GPU-seconds of runs before the present one: a job remembers runs, a batch the last attempts of all its runs."""
    key = str(part(found, "status", "run").get("key") or "")
    if facts.kind_of(found) is RunKind.JOB:
        earlier = [one for one in facts.items(found, "status", "runs") if one.get("key") != key]
    else:
        earlier = [one for one in facts.items(found, "status", "attempts") if not key.startswith(str(one.get("run")))]
    return sum(int(one.get("gpuSeconds") or 0) for one in earlier)


def totals(lines: list[Object]) -> list[Object]:
    """Sums by namespace and currency; hours without a price have no currency, and what has no hours no sum."""
    figures = ("gpuHours", "lostGpuHours", "earlierGpuHours")
    sums: dict[tuple[str, str | None], Object] = {}
    for line in lines:
        if line["amount"] is None and not any(line[figure] for figure in figures):
            continue
        currency = line["currency"] if line["amount"] is not None else None
        found = sums.setdefault(
            (line["namespace"], currency), defaultdict(float, namespace=line["namespace"], currency=currency)
        )
        for figure in figures:
            found[figure] += line[figure]
        if currency is not None:
            found["amount"] += line["amount"]
    return [dict(sums[key]) for key in sorted(sums, key=str)]


def table_of(lines: list[Object], *, everywhere: bool, wide: bool) -> Table:
    """A line for each job and batch, then the totals."""
    headers = ["NAME", "KIND", "PHASE", "GPU-HOURS", "LOST", "EARLIER RUNS", "COST"]
    if wide:
        headers.insert(3, "ATTEMPTS")
    table = plain_table(*(["NAMESPACE"] if everywhere else []), *headers)
    for line in lines:
        cells = [text(line["name"]), text(line["kind"]), text(line["phase"]), *_figures(line)]
        if wide:
            cells.insert(3, text(line["attempts"]))
        table.add_row(*([text(line["namespace"])] if everywhere else []), *cells)
    table.add_section()
    for total in totals(lines):
        cells = [text("TOTAL", "bold"), text(""), text(""), *_figures(total, "bold")]
        if wide:
            cells.insert(3, text(""))
        table.add_row(*([text(total["namespace"], "bold")] if everywhere else []), *cells)
    return table


def _figures(line: Object, style: str = "") -> list[Text]:
    amount = line.get("amount")
    price = "-" if amount is None else f"{amount:,.2f} {line.get('currency') or ''}".rstrip()
    hours = [f"{line[figure]:,.2f}" for figure in ("gpuHours", "lostGpuHours", "earlierGpuHours")]
    return [text(words, style) for words in (*hours, price)]
