"""The table of contents of what is watched. Handlers pass on what they get; they decide nothing and never raise.

Kopf delivers here, in its own thread (see `watches`). No create, update or delete handlers, timers, daemons or
indexes: they act on edges and keep state in annotations, and we decide by looking (docs/adr/0001).
"""

import dataclasses
import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import kopf

from finetune_operator.api.base import GROUP
from finetune_operator.cluster import CHILD_KINDS, MANAGED, OWN_KINDS, RESOURCES
from finetune_operator.kopfstate import NoDiffBase
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings

Observe = Callable[[str, Manifest], None]
"""Takes the change (ADDED, MODIFIED, DELETED) and the object."""


def build_registry(observe: Observe, settings: Settings) -> kopf.OperatorRegistry:
    """All handlers."""
    ours, registry = settings, kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401 - Kopf's keywords
        configure(settings, ours)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 - Kopf's keywords
        return connection()

    async def notice(event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401 - Kopf's keywords
        # None would be an object of a list of Kopf's own, and it makes none.
        observe(str(event["type"]), dict(event["object"]))

    for kind in (*OWN_KINDS, *CHILD_KINDS):
        resource = RESOURCES[kind]
        group, _, version = resource.api_version.rpartition("/")
        kopf.on.event(group, version, resource.plural, registry=registry)(notice)
    return registry


def connection() -> kopf.ConnectionInfo:
    """Where the API server is, read anew each time: the pod's service account, else the kubeconfig.

    Raises ValueError if there is neither.
    """
    settings = kopf.OperatorSettings()
    in_cluster = kopf.login_with_service_account(settings=settings)
    if in_cluster is not None:
        # By address, so that we work while the cluster's DNS does not.
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return dataclasses.replace(in_cluster, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")
    outside = kopf.login_with_kubeconfig(settings=settings)
    if outside is None:
        raise ValueError("neither a service account nor a kubeconfig (KUBECONFIG) was found")
    return outside


def configure(settings: kopf.OperatorSettings, ours: Settings) -> None:
    """Kopf as an event source and nothing else; the reasons are in docs/adr/0001."""
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = ours.watch_idle_seconds
    for kind in CHILD_KINDS:
        resource = RESOURCES[kind]
        group, _, version = resource.api_version.rpartition("/")
        settings.watching.label_selectors[group, version, resource.plural] = MANAGED
    settings.queueing.idle_timeout = 0.2
    settings.networking.request_timeout = ours.request_seconds
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = EndlessBackoffs(ours.outage_retry_seconds)
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = kopf.StatusProgressStorage()
    # Kopf would kill the whole process with SIGKILL; the pod's grace period does that.
    settings.process.ultimate_exiting_timeout = None


class EndlessBackoffs:
    """Seconds between Kopf's attempts, for ever: with a finite list it exits after an outage of a minute."""

    def __init__(self, longest: float) -> None:
        """`longest` is the last and longest of them."""
        self._longest = longest

    def __iter__(self) -> Iterator[float]:
        """1, 2, 4 ... 30, 30 ..., each with jitter."""
        return (min(self._longest, 2.0**attempt) * random.uniform(0.7, 1.0) for attempt in itertools.count())
