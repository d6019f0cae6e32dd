"""Names that a shell offers after <Tab>: of objects, namespaces and contexts.

It never fails and never waits long: a shell that asks for names wants none rather than an error.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from finetune_cli.connecting import connect
from finetune_cli.facts import Object, part
from finetune_cli.kinds import DEPLOYMENTS, JOBS, WORDS

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster

SECONDS = (1, 2)
"""For connecting and for an answer: somebody waits at a prompt."""

Choices = list[tuple[str, str]]
"""Names, each with a word about it."""


def jobs(context: typer.Context, incomplete: str) -> Choices:
    """FineTuneJobs of the namespace, each with its phase."""
    return _objects(context, JOBS, incomplete)


def deployments(context: typer.Context, incomplete: str) -> Choices:
    """ModelDeployments of the namespace."""
    return _objects(context, DEPLOYMENTS, incomplete)


def named(context: typer.Context, incomplete: str) -> Choices:
    """Objects of the kind that a word before says, else FineTuneJobs."""
    return _objects(context, WORDS.get(str(context.params.get("kind")), JOBS), incomplete)


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
