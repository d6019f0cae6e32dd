"""`status`: tables of what there is, or one thing in full."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from finetune_cli import batch_page, completion, deployment_page, page
from finetune_cli.connecting import connect
from finetune_cli.facts import Object
from finetune_cli.kinds import Shown
from finetune_cli.options import Context, Format, Namespace, Output, answer, listed

TABLES = {
    Shown.JOB: page.jobs_table,
    Shown.BATCH: batch_page.batches_table,
    Shown.DEPLOYMENT: deployment_page.deployments_table,
}
PAGES = {
    Shown.JOB: page.job_page,
    Shown.BATCH: batch_page.batch_page,
    Shown.DEPLOYMENT: deployment_page.deployment_page,
}


def status(
    name: Annotated[
        str | None,
        typer.Argument(help="One in full; none: tables of all.", autocompletion=completion.named),
    ] = None,
    kind: Annotated[
        Shown, typer.Option("--kind", help="What it is: a FineTuneJob, a BatchInference, or a ModelDeployment.")
    ] = Shown.JOB,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show all FineTuneJobs, BatchInferences and ModelDeployments, or one of them in full."""
    cluster = connect(context, namespace)
    now = datetime.now(UTC)
    if name is not None:
        one = cluster.objects.get(kind.plural, name)
        answer(output, one, lambda: PAGES[kind](one, now))
        return
    found = {each: cluster.objects.all_of(each.plural) for each in Shown}
    everything = [one for those in found.values() for one in those]
    if everything or output in (Format.JSON, Format.YAML):
        answer(output, listed(everything), lambda: tables(found, now, wide=output is Format.WIDE))
    else:
        words = "No FineTuneJobs, BatchInferences or ModelDeployments"
        typer.echo(f"{words} in namespace {cluster.namespace}.", err=True)


def tables(found: Mapping[Shown, list[Object]], now: datetime, *, wide: bool = False) -> RenderableType:
    """A table of each kind that there is."""
    drawn: list[RenderableType] = []
    for kind, those in found.items():
        if those:
            drawn += [*([""] if drawn else []), TABLES[kind](those, now, wide=wide)]
    return Group(*drawn)
