"""The way to the cluster for commands: the client library takes a second to load, and only some commands need it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster


def connect(context: str | None = None, namespace: str | None = None) -> "Cluster":
    """As `cluster.connect`."""
    from finetune_cli import cluster

    return cluster.connect(context, namespace)
