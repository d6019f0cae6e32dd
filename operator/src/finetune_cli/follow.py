"""A job, or several, watched to the end, with what came of each."""

from collections.abc import Sequence
from typing import Protocol

import typer
from rich.console import Console

from finetune_cli import page, watch
from finetune_cli.errors import CliError, GateFailedError
from finetune_cli.facts import Object
from finetune_cli.view import clean


class Reader(Protocol):
    """What reads a job."""

    def job(self, name: str) -> Object:
        """The job as it is."""


def to_the_end(cluster: Reader, name: str, terminal: Console, timeout: float | None) -> None:
    """Watch a job and print its result.

    Raises:
        GateFailedError: it has succeeded, but not passed its gate.
        CliError: it failed.
    """
    try:
        job = watch.until_ended(lambda: cluster.job(name), terminal, timeout)
    except GateFailedError as error:
        terminal.print(page.result(error.job))
        raise
    except KeyboardInterrupt:
        typer.echo(f"{name} goes on by itself; `kubectl finetune watch {name}` looks again", err=True)
        raise
    terminal.print(page.result(job))


def all_to_the_end(cluster: Reader, names: Sequence[str], terminal: Console, timeout: float | None) -> None:
    """Watch one after another, for later ones may wait for earlier ones; all are looked at.

    Raises:
        CliError: the first that failed; a GateFailedError only where nothing worse has happened.
    """
    failures: list[CliError] = []
    for name in names:
        try:
            to_the_end(cluster, name, terminal, timeout)
        except CliError as error:
            failures.append(error)
    worst = sorted(failures, key=_is_gate)
    for other in worst[1:]:
        typer.echo(f"error: {clean(other)}", err=True)
    if worst:
        raise worst[0]


def _is_gate(error: CliError) -> bool:
    return isinstance(error, GateFailedError)
