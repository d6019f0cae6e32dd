"""A job or batch, or several, watched to the end, with what came of each."""

from collections.abc import Sequence
from typing import Protocol

import typer
from rich.console import Console

from finetune_cli import batch_page, page, watch
from finetune_cli.errors import CliError, GateFailedError
from finetune_cli.facts import Object
from finetune_cli.kinds import RunKind
from finetune_cli.view import clean


class Reader(Protocol):
    """What reads an object."""

    def get(self, plural: str, name: str) -> Object:
        """The object as it is."""


def to_the_end(objects: Reader, kind: RunKind, name: str, terminal: Console, timeout: float | None) -> None:
    """Watch a job or batch and print its result.

    Raises:
        GateFailedError: it has succeeded, but not passed its gate.
        CliError: it failed.
    """
    try:
        found = watch.until_ended(lambda: objects.get(kind.plural, name), terminal, timeout)
    except GateFailedError as error:
        terminal.print(page.result(error.job))
        raise
    except KeyboardInterrupt:
        again = f"{name} --kind {kind}" if kind is not RunKind.JOB else name
        typer.echo(f"{name} goes on by itself; `kubectl finetune watch {again}` looks again", err=True)
        raise
    terminal.print(batch_page.result(found) if kind is RunKind.BATCH else page.result(found))


def all_to_the_end(
    objects: Reader, runs: Sequence[tuple[RunKind, str]], terminal: Console, timeout: float | None
) -> None:
    """Watch one after another, for later ones may wait for earlier ones; all are looked at.

    Raises:
        CliError: the first that failed; a GateFailedError only where nothing worse has happened.
    """
    failures: list[CliError] = []
    for kind, name in runs:
        try:
            to_the_end(objects, kind, name, terminal, timeout)
        except CliError as error:
            failures.append(error)
    worst = sorted(failures, key=_is_gate)
    for other in worst[1:]:
        typer.echo(f"error: {clean(other)}", err=True)
    if worst:
        raise worst[0]


def _is_gate(error: CliError) -> bool:
    return isinstance(error, GateFailedError)
