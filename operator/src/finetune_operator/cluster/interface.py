"""What the rest of the operator asks of the API server; a test has its own."""

import ssl
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, Protocol

from finetune_operator.manifests.naming import Manifest


class Page(NamedTuple):
    """Part of a list."""

    items: Iterable[Manifest]
    """To be gone through once: an object is read from the answer when its turn comes, so few are there at a time."""
    resource_version: str
    """Of the whole list: every page shows the state at this version."""


class Head(NamedTuple):
    """Which object, and in which version."""

    uid: str
    namespace: str
    name: str
    version: int


class Heads(NamedTuple):
    """Part of a list of heads."""

    items: list[Head]
    resource_version: str
    """Of the whole list."""


class Connection(Protocol):
    """Where the API server is and how to log in; `kopf.ConnectionInfo` is one."""

    @property
    def server(self) -> str:
        """The URL."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Trust, and the client certificate if there is one."""

    def as_http_headers(self) -> dict[str, str]:
        """Authorization, if it is by token."""


class Cluster(Protocol):
    """Everything that the operator asks of the API server. Raises only `ClusterError`s."""

    async def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """One object."""

    def list(self, kind: str, namespace: str | None) -> AsyncIterator[Page]:
        """All objects of one of our kinds, or all our children of another, in pages."""

    def heads(self, kind: str, namespace: str | None) -> AsyncIterator[Heads]:
        """The same objects, of each only which it is: much cheaper, for both sides."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; one that exists already and has the same controller counts as created."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply: the fields in the manifest become ours, others are left alone."""

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object if its resourceVersion is still the manifest's."""

    async def replace_status(self, manifest: Manifest) -> Manifest:
        """Replace an object's status if its resourceVersion is still the manifest's."""

    async def delete(self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool = False) -> None:
        """Delete this very object, its dependents after or (`foreground`) before it; gone already counts as deleted."""

    async def record(self, event: Manifest, count: int) -> None:
        """Post an Event; one that exists already becomes a series of `count`."""

    async def events_about(self, namespace: str, kind: str, reason: str) -> tuple[Manifest, ...]:
        """Events of one reason about objects of one kind; of very many, some."""

    async def served_kinds(self) -> frozenset[str]:
        """Which of our kinds the API server knows."""

    async def workloads(self, namespace: str, jobs: Iterable[str]) -> tuple[Manifest, ...]:
        """Kueue's Workloads of the Jobs with these uids; NotFound where there is no Kueue."""

    async def pending_workloads(self, namespace: str, queue: str) -> tuple[Manifest, ...]:
        """What waits in a LocalQueue, in its order; NotFound where Kueue does not tell."""
