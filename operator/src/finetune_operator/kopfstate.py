"""What Kopf would list, compute and keep of every object for handlers that we do not have. Here it is nothing.

We only listen to raw events (docs/adr/0001), yet for each of them Kopf copies the whole object twice to find out what
has changed since the last handling, and keeps a record of each object for as long as it lives: half of its processor
time in a burst, and a kilobyte per object at rest. Before it watches, it lists everything, which we have just done
ourselves: with 70,000 objects that was three quarters of a start's processor time and a hundred megabytes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import kopf

# The only private names of Kopf that we use. `kopf.operator` takes an instance of the first, but the package does not
# export it; the second has the function that lists before a watch. A test runs a watch with both.
from kopf._cogs.clients import fetching
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from finetune_operator.cluster import RESOURCES

WatchedFrom = Callable[[str, str | None], Awaitable[str]]
"""Takes a kind and a namespace (None: all); answers the version that a watch of them begins at."""

_fetch_objs = fetching.fetch_objs
_KINDS = {resource.plural: kind for kind, resource in RESOURCES.items()}


def list_by(watched_from: WatchedFrom) -> None:
    """Have Kopf ask this for a version to watch from, wherever it would list the objects of one of our kinds."""

    async def fetch_objs(**options: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - Kopf's signature
        kind = _KINDS.get(options["resource"].plural)
        if kind is None:
            async for chunk in _fetch_objs(**options):
                yield chunk
        else:
            yield (), await watched_from(kind, options["namespace"])

    fetching.fetch_objs = fetch_objs


class NoDiffBase(kopf.DiffBaseStorage):
    """No change of any object is of interest: only change handlers ask for it."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:  # noqa: ARG002 - Kopf's signature
        """What matters of the object: nothing."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002 - Kopf's signature
        """What mattered when it was last handled: never."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Remember nothing."""


class Forgetful(ResourceMemories):
    """Records of objects that live for one event."""

    async def recall(self, raw_body: Any, **options: Any) -> ResourceMemory:  # noqa: ANN401 - Kopf's signature
        """A new record, which nobody keeps."""
        return await super().recall(raw_body, **{**options, "ephemeral": True})
