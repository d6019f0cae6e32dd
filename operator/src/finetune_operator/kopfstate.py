"""What Kopf would compute and keep of every object for handlers that we do not have. Here it is nothing.

We only listen to raw events (docs/adr/0001), yet for each of them Kopf copies the whole object twice to find out what
has changed since the last handling, and keeps a record of each object for as long as it lives: half of its processor
time in a burst, and a kilobyte per object at rest.
"""

from collections.abc import Iterable
from typing import Any

import kopf

# The only private name of Kopf that we use: `kopf.operator` takes an instance, but the package does not export it.
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory


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
