"""What commands have in common: options, formats of an answer, and where it is printed."""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console, RenderableType

from finetune_cli import completion
from finetune_cli.kinds import RunKind

PIPE_WIDTH = 500
"""Where nobody looks, nothing is cut: lines in a pipe may be long."""

Name = Annotated[str, typer.Argument(help="Its name.", autocompletion=completion.named)]
Of = Annotated[RunKind, typer.Option("--kind", help="What it is: a FineTuneJob, or a BatchInference.")]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Default: the context's.", autocompletion=completion.namespaces),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context", help="A context of the kubeconfig. Default: the current.", autocompletion=completion.contexts
    ),
]
Force = Annotated[
    bool, typer.Option("--force-conflicts", help="Take over fields that somebody else has set, as kubectl does.")
]


SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """A duration as people write it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is not a duration; write 90s, 10m or 2h")
    return float(found[1]) * SECONDS[found[2]]


Timeout = Annotated[float | None, typer.Option(help="Give up after 90s, 10m, 2h.", parser=seconds, metavar="DURATION")]


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How the answer is written.")]


def answer(form: Format, data: Any, drawn: Callable[[], RenderableType]) -> None:  # noqa: ANN401 - JSON
    """Print data as it is, or as a table."""
    match form:
        case Format.JSON:
            typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        case Format.YAML:
            typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=PIPE_WIDTH), nl=False)
        case _:
            console().print(drawn())


def listed(items: list[Any]) -> dict[str, Any]:
    """Several objects as kubectl writes them."""
    return {"apiVersion": "v1", "kind": "List", "items": items}


def console(*, stderr: bool = False) -> Console:
    """The terminal, or a pipe where nothing is cut."""
    found = Console(highlight=False, stderr=stderr)
    return found if found.is_terminal else Console(highlight=False, stderr=stderr, width=PIPE_WIDTH)
