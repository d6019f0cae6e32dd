"""Has each namespace's store collected now and then, if retention is on: we look up what is in use, a Job deletes.

What is in use is read anew from the API server, never from the cache: a status that the cache has not seen yet counts.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import datetime

from finetune_contract.collection import MOST_PREFIXES, CollectionResult, prefixes_in
from finetune_operator import metrics
from finetune_operator.cache import Cache
from finetune_operator.cluster import OWN_KINDS, Cluster
from finetune_operator.entries import Entry, Key
from finetune_operator.errors import ClusterError
from finetune_operator.events import Recorder
from finetune_operator.manifests import collection as manifests
from finetune_operator.manifests.naming import LABEL_ROLE, ROLE_STORE, Manifest
from finetune_operator.reconcile.collection import Decision, decide, event_of, result_of
from finetune_operator.reconcile.endings import finished_at, label_of, name_of
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.storage import access_to
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Collections at a time in the whole cluster: nobody waits for them, and listing namespaces is work."""
LONGEST_PAUSE = 60.0
"""Seconds between looks."""
KINDS_IN_ORDER = (*OWN_KINDS, "ConfigMap", "Pod", *OWN_KINDS)
"""A reference goes from a status into a plan and from a pod's result into a status. Statuses are looked at before and
after what is between them, so that none slips through while it moves."""


class Collector:
    """Starts collections, and says what came of them."""

    def __init__(
        self, cluster: Cluster, cache: Cache, recorder: Recorder, settings: Settings, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._recorder = recorder
        self._settings = settings
        self._now = now
        self._running: set[str] = set()
        """Uids of Jobs that were seen unfinished, so that only their end is news."""

    async def run(self) -> None:
        """Look for ever; at once at an end where retention is off."""
        if self._settings.retention_minimum_age_seconds is None:
            return
        while True:
            try:
                await self.look()
            except Exception:
                # Retention is the least of our duties: its trouble must not end the others.
                log.exception("the stores could not be looked at, again later")
            await asyncio.sleep(min(LONGEST_PAUSE, self._settings.collection_interval_seconds / 10))

    async def look(self) -> None:
        """Look at each store once."""
        minimum_age = self._settings.retention_minimum_age_seconds
        if minimum_age is None:
            return
        under_way = 0
        waiting: list[tuple[Manifest, int]] = []
        for claim in self._stores():
            jobs, decision = await self._follow(claim)
            under_way += sum(finished_at(job) is None for job in jobs)
            if decision.start is not None:
                waiting.append((claim, decision.start))
        for claim, number in waiting[: max(0, AT_ONCE - under_way)]:
            try:
                await self._start(claim, number, minimum_age)
            except ClusterError as error:
                log.warning("%s could not be collected, again later: %s", _where(claim), error)

    def _stores(self) -> list[Manifest]:
        """Claims, and the ConfigMaps of stores in S3."""
        entries = (*self._cache.of_kind("PersistentVolumeClaim"), *self._cache.of_kind("ConfigMap"))
        found = [entry.load() for entry in entries if self._may_be_a_store(entry)]
        return [item for item in found if self._is_store(item) and not item["metadata"].get("deletionTimestamp")]

    def _may_be_a_store(self, entry: Entry) -> bool:
        """Cheap: most ConfigMaps are plans."""
        return entry.place.kind == "PersistentVolumeClaim" or entry.controller is None

    def _is_store(self, item: Manifest) -> bool:
        by_name = item["kind"] == "PersistentVolumeClaim" and name_of(item) == self._settings.claim_name
        return by_name or label_of(item, LABEL_ROLE) == ROLE_STORE

    async def _follow(self, claim: Manifest) -> tuple[tuple[Manifest, ...], Decision]:
        """Tell of collections that ended, remove what older ones left; answers the Jobs and what to do next."""
        metadata, now = claim["metadata"], self._now()
        key = Key(claim["kind"], metadata["namespace"], metadata["name"])
        children = self._cache.children(key, metadata["uid"])
        jobs = children.get("Job", ())
        for job in jobs:
            await self._tell(claim, job, result_of(job, children.get("Pod", ()), now))
        interval = self._settings.collection_interval_seconds
        decision = decide(claim, jobs, children.get("ConfigMap", ()), now, interval)
        for item in decision.delete:
            try:
                await self._cluster.delete(item.kind, key.namespace, item.name, item.uid)
                self._cache.doom(item.uid)
            except ClusterError as error:
                log.info("%s %s could not be deleted, again later: %s", item.kind, item.name, error)
        return jobs, decision

    async def _tell(self, claim: Manifest, job: Manifest, result: CollectionResult | None) -> None:
        uid = str(job["metadata"]["uid"])
        if result is None:
            self._running.add(uid)
        elif uid in self._running:
            self._running.remove(uid)
            metrics.COLLECTIONS.labels("failed" if result.failure else "succeeded").inc()
            metrics.COLLECTED_ENTRIES.inc(result.removed)
            metrics.COLLECTED_BYTES.inc(result.bytes)
            log.info("%s: %s ended: %s", _where(claim), name_of(job), result.to_json())
            event = event_of(job, result)
            if event:
                await self._recorder.post(claim, event)

    async def _start(self, claim: Manifest, number: int, minimum_age: float) -> None:
        as_of = self._now()
        users: list[Manifest] = []
        live = await self._in_use(claim["metadata"]["namespace"], users)
        if len(live) > MOST_PREFIXES:
            message = f"{len(live)} digests and run keys are in use; a plan holds {MOST_PREFIXES}: nothing is deleted"
            await self._recorder.post(claim, Event("Warning", "CollectionFailed", message))
            return
        access = access_to(claim, users, self._settings)
        if access is None:
            log.info("%s: no object says how to get at it any more, so it is not collected", _where(claim))
            return
        for manifest in manifests.build(claim, number, live, as_of, minimum_age, *access):
            self._cache.put(await self._cluster.create(manifest))
        log.info("%s: collection %d begins, with %d digests and run keys in use", _where(claim), number, len(live))

    async def _in_use(self, namespace: str, users: list[Manifest]) -> set[str]:
        """Every digest and run key that occurs anywhere in our objects of the namespace; fills in who has a store."""
        found: set[str] = set()
        for kind in KINDS_IN_ORDER:
            async for page in self._cluster.list(kind, namespace):
                for item in page.items:
                    found |= prefixes_in(json.dumps(item))
                    if kind in OWN_KINDS:
                        users.append({part: item.get(part) for part in ("metadata", "spec", "status")})
                # Thousands of objects are read without keeping the probes and the lease waiting.
                await asyncio.sleep(0)
        return found


def _where(claim: Manifest) -> str:
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
