"""`cost`: what jobs have used and what that comes to."""

from collections import defaultdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from finetune_cli import completion, facts
from finetune_cli.connecting import connect
from finetune_cli.facts import Object, part
from finetune_cli.kinds import JOBS
from finetune_cli.options import Context, Format, Namespace, Output, answer
from finetune_cli.view import plain_table, text


def cost(
    names: Annotated[
        list[str] | None, typer.Argument(help="FineTuneJobs; none: all.", autocompletion=completion.jobs)
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of every namespace, with a total for each.")
    ] = False,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show GPU-hours and their price, by job and in all.

    A job's price is of its present run; GPU-hours of its earlier runs, as far as the status remembers, are a column of
    their own. Prices are the platform's, of the time when the hours were used.
    """
    if names and everywhere:
        raise typer.BadParameter("names are of one namespace; leave --all-namespaces away, or the names")
    cluster = connect(context, namespace)
    jobs = [cluster.job(name) for name in names] if names else cluster.objects.all_of(JOBS, everywhere=everywhere)
    lines = sorted((line_of(job) for job in jobs), key=lambda line: (line["namespace"], line["name"]))
    if not lines and output in (Format.TABLE, Format.WIDE):
        where = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        typer.echo(f"No FineTuneJobs in {where}.", err=True)
        return
    answer(
        output,
        {"jobs": lines, "totals": totals(lines)},
        lambda: table_of(lines, everywhere=everywhere, wide=output is Format.WIDE),
    )


def line_of(job: Object) -> Object:
    """What a job has used: hours, and amount where there is a price."""
    status = part(job, "status")
    spent = part(status, "cost")
    run = part(status, "run").get("key")
    earlier = sum(
        int(record.get("gpuSeconds") or 0) for record in facts.items(status, "runs") if record.get("key") != run
    )
    return {
        "namespace": str(part(job, "metadata").get("namespace") or ""),
        "name": facts.name_of(job),
        "phase": facts.phase(job),
        "attempts": facts.attempt(job),
        "gpuHours": facts.finite(spent.get("gpuHours")) or 0.0,
        "lostGpuHours": facts.finite(spent.get("lostGpuHours")) or 0.0,
        "earlierGpuHours": round(earlier / 3600, 6),
        "amount": facts.finite(spent.get("amount")),
        "currency": spent.get("currency"),
    }


def totals(lines: list[Object]) -> list[Object]:
    """Sums by namespace and currency; hours without a price have no currency, and jobs without hours no sum."""
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
    """A line for each job, then the totals."""
    headers = ["NAME", "PHASE", "GPU-HOURS", "LOST", "EARLIER RUNS", "COST"]
    if wide:
        headers.insert(2, "ATTEMPTS")
    table = plain_table(*(["NAMESPACE"] if everywhere else []), *headers)
    for line in lines:
        cells = [text(line["name"]), text(line["phase"]), *_figures(line)]
        if wide:
            cells.insert(2, text(line["attempts"]))
        table.add_row(*([text(line["namespace"])] if everywhere else []), *cells)
    table.add_section()
    for total in totals(lines):
        cells = [text("TOTAL", "bold"), text(""), *_figures(total, "bold")]
        if wide:
            cells.insert(2, text(""))
        table.add_row(*([text(total["namespace"], "bold")] if everywhere else []), *cells)
    return table


def _figures(line: Object, style: str = "") -> list[Text]:
    amount = line.get("amount")
    price = "-" if amount is None else f"{amount:,.2f} {line.get('currency') or ''}".rstrip()
    hours = [f"{line[figure]:,.2f}" for figure in ("gpuHours", "lostGpuHours", "earlierGpuHours")]
    return [text(words, style) for words in (*hours, price)]
