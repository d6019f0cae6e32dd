"""Keeps the cache true: takes in what the watches deliver, and lists everything now and then for what they did not.

Watches lose things: Kopf reports no deletion that happened while it was not connected, and a proxy may swallow an
event. A sweep compares names and versions (metadata only, so it is cheap) and repairs the difference.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from finetune_operator import memory, metrics
from finetune_operator.cache import Cache
from finetune_operator.cluster import CHILD_KINDS, OWN_KINDS, Cluster, Head
from finetune_operator.entries import Key
from finetune_operator.errors import ClusterError, NotFound
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

KINDS = (*CHILD_KINDS, *OWN_KINDS)
"""Children first: a resource is never looked at before its children are known."""
FIRST_RETRY = 1.0


class Synchroniser:
    """Feeds the cache and says who should look."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        notify: Callable[[Iterable[Key]], None],
        settings: Settings,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._notify = notify
        self._namespaces: tuple[str | None, ...] = settings.namespaces or (None,)
        self._settings = settings
        self._relisted = asyncio.Event()
        self._synced: set[str] = set()
        self._listed: dict[tuple[str, str | None], str] = {}
        """Kind and namespace -> version of the first list, until a watch goes on from it."""

    @property
    def is_synced(self) -> bool:
        """Whether everything was listed at least once."""
        return len(self._synced) == len(KINDS)

    def observe(self, change: str, manifest: Manifest) -> None:
        """Take in what a watch delivered: ADDED, MODIFIED or DELETED."""
        kind = manifest["kind"]
        metrics.WATCH_EVENTS.labels(kind).inc()
        metrics.WATCH_LAST_EVENT.labels(kind).set(time.time())
        self._notify(self._cache.remove(manifest) if change == "DELETED" else self._cache.put(manifest))

    async def fill(self) -> None:
        """List everything once, for as long as it takes; the watches go on from there."""
        for kind in KINDS:
            for namespace in self._namespaces:
                self._listed[kind, namespace] = await self._insist(kind, partial(self._fill, kind, namespace))
            self._synced.add(kind)
        metrics.SWEEP_LAST_END.set_to_current_time()
        log.info("caches filled: %s", ", ".join(f"{len(self._cache.versions(kind))} {kind}" for kind in KINDS))

    async def watched_from(self, kind: str, namespace: str | None) -> str:
        """The version that a new watch goes on from: of the first list, or where that is used up, of another one.

        A watch needs another one after it was away for too long. What was deleted meanwhile a sweep finds.
        """
        version = self._listed.pop((kind, namespace), None)
        if version is None:
            version = await self._insist(kind, partial(self._fill, kind, namespace))
            self._relisted.set()
        return version

    async def run(self) -> None:
        """Sweep for ever: every period, and soon after a watch had to list again."""
        while True:
            try:
                async with asyncio.timeout(self._settings.resync_seconds):
                    await self._relisted.wait()
                await asyncio.sleep(self._settings.relist_seconds)
            except TimeoutError:
                log.debug("periodic sweep")
            self._relisted.clear()
            for kind in KINDS:
                await self._insist(kind, partial(self.sweep, kind))
            metrics.SWEEP_LAST_END.set_to_current_time()
            memory.give_back()

    async def sweep(self, kind: str) -> None:
        """Compare the cache with the API server, for one kind."""
        for namespace in self._namespaces:
            before = {
                entry.uid: entry.version
                for entry in self._cache.of_kind(kind)
                if namespace in (None, entry.place.namespace)
            }
            listed: dict[str, Head] = {}
            as_of = 0
            async for page in self._cluster.heads(kind, namespace):
                as_of = int(page.resource_version)
                listed.update((head.uid, head) for head in page.items)
            for uid, version in before.items():
                if uid not in listed and version <= as_of:
                    metrics.SWEEP_REPAIRS.labels(kind).inc()
                    self._notify(self._cache.vanish(uid))
            await self._catch_up(kind, listed)

    async def _catch_up(self, kind: str, listed: dict[str, Head]) -> None:
        """Read what is newer than in the cache, unless the watches deliver it by themselves."""
        if not self._behind(kind, listed):
            return
        await asyncio.sleep(self._settings.watch_lag_seconds)
        for head in self._behind(kind, listed):
            try:
                found = await self._cluster.get(kind, head.namespace, head.name)
            except NotFound:
                continue
            affected = self._cache.put(found)
            if affected:
                log.warning("the watch has missed %s %s/%s", kind, head.namespace, head.name)
                metrics.SWEEP_REPAIRS.labels(kind).inc()
            self._notify(affected)

    def _behind(self, kind: str, listed: dict[str, Head]) -> list[Head]:
        known = self._cache.versions(kind)
        return [item for uid, item in listed.items() if known.get(uid, -1) < item.version]

    async def _fill(self, kind: str, namespace: str | None) -> str:
        """Take in all that there is; answers the list's version."""
        version = ""
        async for page in self._cluster.list(kind, namespace):
            version = page.resource_version
            for item in page.items:
                self._notify(self._cache.put(item))
            # Thousands of objects are taken in without keeping the probes and the lease waiting.
            await asyncio.sleep(0)
        return version

    async def _insist(self, kind: str, action: Callable[[], Awaitable[T]]) -> T:
        delay = FIRST_RETRY
        while True:
            try:
                return await action()
            except ClusterError as error:
                log.warning("%s could not be listed, again in %.0f s: %s", kind, delay, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, self._settings.outage_retry_seconds)
