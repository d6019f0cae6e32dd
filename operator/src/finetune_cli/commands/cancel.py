"""`cancel`: a job or batch is deleted, and with it what runs for it; what is stored stays."""

import sys
from typing import Annotated

import typer

from finetune_cli import acts, facts
from finetune_cli.connecting import connect
from finetune_cli.kinds import RunKind
from finetune_cli.options import Context, Name, Namespace, Of


def cancel(
    name: Name,
    kind: Of = RunKind.JOB,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Stop a FineTuneJob or BatchInference for good: delete it, with its Jobs and pods.

    Checkpoints, artifacts and answers stay in the store: the same YAML, submitted again, goes on from them. To stop it
    and keep the object, `suspend` it.
    """
    cluster = connect(context, namespace)
    found = cluster.objects.get(kind.plural, name)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here: give --yes")
        typer.confirm(f"Delete {name} ({facts.phase(found)}) in namespace {cluster.namespace}?", abort=True)
    cluster.objects.delete(kind.plural, name)
    typer.echo(f"{name} deleted: its pods stop, and what it has stored stays")
    for line in acts.owned_elsewhere(kind, found, f"remove the {kind}"):
        typer.echo(line, err=True)
