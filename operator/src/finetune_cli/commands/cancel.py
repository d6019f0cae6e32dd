"""`cancel`: a job is deleted, and with it what trains; what is stored stays."""

import sys
from typing import Annotated

import typer

from finetune_cli import acts, facts
from finetune_cli.connecting import connect
from finetune_cli.kinds import JOBS
from finetune_cli.options import Context, Name, Namespace


def cancel(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Stop a FineTuneJob for good: delete it, with its Jobs and pods.

    Checkpoints and artifacts stay in the store: the same YAML, submitted again, goes on from them. To stop it and keep
    the object, `suspend` it.
    """
    cluster = connect(context, namespace)
    job = cluster.job(name)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here: give --yes")
        typer.confirm(f"Delete {name} ({facts.phase(job)}) in namespace {cluster.namespace}?", abort=True)
    cluster.objects.delete(JOBS, name)
    typer.echo(f"{name} deleted: its training stops, and what it has stored stays")
    for line in acts.owned_elsewhere(job, "remove the job"):
        typer.echo(line, err=True)
