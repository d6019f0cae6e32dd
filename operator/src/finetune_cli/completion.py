"""Names that a shell offers after <Tab>: of objects, namespaces and contexts.

It never fails and never waits long: a shell that asks for names wants none rather than an error. kubectl asks a
program named `kubectl_complete-finetune` what may follow `kubectl finetune`: that is `for_kubectl`.
"""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from finetune_cli.connecting import connect
from finetune_cli.facts import Object, part
from finetune_cli.kinds import DATASETS, DEPLOYMENTS, JOBS

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster

SECONDS = (1, 2)
"""For connecting and for an answer: somebody waits at a prompt."""

Choices = list[tuple[str, str]]
"""Names, each with a word about it."""

FILES, NO_FILES = 0, 4
"""What the shell does where it is offered nothing, by the numbers of kubectl's completion (Cobra's directives)."""
TAKES_FILES = {"validate", "submit"}


def jobs(context: typer.Context, incomplete: str) -> Choices:
    """FineTuneJobs of the namespace, each with its phase."""
    return _objects(context, JOBS, incomplete)


def deployments(context: typer.Context, incomplete: str) -> Choices:
    """ModelDeployments of the namespace."""
    return _objects(context, DEPLOYMENTS, incomplete)


def either(context: typer.Context, incomplete: str) -> Choices:
    """What `report` is asked for: a Dataset or a FineTuneJob, as the word before says."""
    return _objects(context, DATASETS if context.params.get("kind") == "dataset" else JOBS, incomplete)


def namespaces(context: typer.Context, incomplete: str) -> Choices:
    """Namespaces that may be listed."""

    def ask(cluster: "Cluster") -> list[Object]:
        return cluster.objects.namespaces(SECONDS)

    return _fitting([(one["metadata"]["name"], "") for one in _asked(context, ask)], incomplete)


def contexts(incomplete: str) -> Choices:
    """Contexts of the kubeconfig, each with its cluster."""
    try:
        from kubernetes import config

        list_contexts: Any = config.list_kube_config_contexts
        found, _ = list_contexts()
        return _fitting([(str(one["name"]), part(one, "context").get("cluster") or "") for one in found], incomplete)
    except Exception:  # noqa: BLE001 - a broken kubeconfig completes to nothing
        return []


def _objects(context: typer.Context, plural: str, incomplete: str) -> Choices:
    def ask(cluster: "Cluster") -> list[Object]:
        return cluster.objects.all_of(plural, seconds=SECONDS)

    named = {word for values in context.params.values() if isinstance(values, list | tuple) for word in values}
    found = [(one["metadata"]["name"], part(one, "status").get("phase") or "") for one in _asked(context, ask)]
    return _fitting([(name, phase) for name, phase in found if name not in named], incomplete)


def _asked(context: typer.Context, ask: Callable[["Cluster"], list[Object]]) -> list[Object]:
    try:
        return ask(connect(context.params.get("context"), context.params.get("namespace")))
    except Exception:  # noqa: BLE001 - see the module's docstring
        return []


def _fitting(names: Choices, incomplete: str) -> Choices:
    return [(name, words) for name, words in sorted(names) if name.startswith(incomplete)]


def for_kubectl() -> None:
    """The entry point `kubectl_complete-finetune`: words so far in, choices and a last line `:NUMBER` out."""
    words = sys.argv[1:] or [""]
    choices = _choices(words)
    takes_files = words[0] in TAKES_FILES and len(words) > 1 and not words[-1].startswith("-")
    typer.echo(choices + f":{FILES if takes_files and not choices else NO_FILES}")


def _choices(words: list[str]) -> str:
    """What typer offers fish, whose format is Cobra's: a choice a line, with a tab and a word about it."""
    from finetune_cli.__main__ import PROGRAM, app

    line = shlex.join([PROGRAM, *words[:-1]]) + " " + words[-1]
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    asked = {
        variable: "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": line,
    }  # fmt: skip
    said = io.StringIO()
    os.environ |= asked
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            app(args=[], prog_name=PROGRAM, complete_var=variable)
    finally:
        for name in asked:
            del os.environ[name]
    return "".join(f"{line}\n" for line in said.getvalue().splitlines() if line)
