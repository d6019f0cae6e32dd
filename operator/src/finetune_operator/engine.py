"""The loop: take a key, observe, let the pure reconcile decide, act. The one place where errors end.

A pass acts in a fixed order: create, apply, status, delete, events. Whatever is interrupted, the next pass finds by
looking, so it may be killed after any line. A pass that finds everything as it should be writes nothing.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from finetune_contract.batching import BatchProgress
from finetune_contract.results import Progress
from finetune_operator import accounting, metrics
from finetune_operator.cache import Cache
from finetune_operator.cluster import CHILD_KINDS, OWN_KINDS, Cluster, controller_uid
from finetune_operator.entries import Key, Place, digest
from finetune_operator.errors import ClusterError, Conflict, Denied, NotFound, Unavailable
from finetune_operator.events import Recorder
from finetune_operator.explanations import Explanations
from finetune_operator.manifests.naming import Manifest
from finetune_operator.ownership import must_be_ours
from finetune_operator.queue import Closed, Urgency, WorkQueue
from finetune_operator.reconcile.kinds import Kind
from finetune_operator.reconcile.lineage import ancestors
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Outcome
from finetune_operator.reconcile.storage import claim_among, settings_for, settings_of
from finetune_operator.reconcile.troubles import Doubt, in_doubt
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

LARGEST_MEMO = 2000
"""ConfigMaps and claims that are remembered between passes."""


class StatusNotKeptError(Exception):
    """The API server stored another status than was sent: the CRD does not know a field, or its bounds are wrong."""


@dataclass(frozen=True)
class Applied:
    """What a server-side apply left; while the child still looks like that, there is nothing to do."""

    manifest: str
    uid: str
    content: str


class Engine:
    """Reconciles the keys in the queue. Does nothing until it is told that this replica leads."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue[Key],
        kinds: Mapping[str, Kind],
        settings: Settings,
        recorder: Recorder,
        now: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._kinds = kinds
        self._settings = settings
        self._recorder = recorder
        self._now = now
        self._explanations = Explanations(cluster, now)
        self._leads = False
        self._denials: dict[Key, dict[str, str]] = {}
        self._applied: dict[Key, dict[Place, Applied]] = {}
        self._memo: dict[Place, tuple[datetime, Manifest | None]] = {}

    async def work(self) -> None:
        """Lead: look at everything once, then at what changes, until the queue is closed and all passes are done."""
        self._leads = True
        self.notify(self._cache.keys(), Urgency.RESYNC)
        async with asyncio.TaskGroup() as workers:
            for number in range(self._settings.workers):
                workers.create_task(self._work(), name=f"worker {number}")

    def notify(self, keys: Iterable[Key], urgency: Urgency = Urgency.CHANGE) -> None:
        """These resources should be looked at. The standby only keeps its cache: a new leader looks at everything."""
        if self._leads:
            for key in keys:
                if key.kind in self._kinds:
                    entry = self._cache.entry(key)
                    self._queue.add(key, Urgency.EDIT if entry and entry.is_edited else urgency)

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except Closed:
                return
            try:
                await self.handle(key)
            finally:
                self._queue.done(key)
            # A pass that has nothing to ask and nothing to write never waits: thousands in a row, as when a replica
            # begins to lead, would keep the lease from being renewed and the probes from being answered.
            await asyncio.sleep(0)

    async def handle(self, key: Key) -> None:
        """One pass, and what comes of it. Raises nothing."""
        with metrics.RECONCILE_SECONDS.labels(key.kind).time():
            try:
                wake_after = await self._pass(key)
            except Exception as error:  # noqa: BLE001 - the boundary: one resource's trouble never stops the others
                result = "retry" if isinstance(error, ClusterError) else "error"
                await self._recover(key, error)
            else:
                result = "success" if wake_after is None else "requeue_after"
                self._queue.forget(key)
                if wake_after is not None:
                    self._queue.add_after(key, wake_after)
        metrics.RECONCILES.labels(key.kind, result).inc()

    async def _recover(self, key: Key, error: Exception) -> None:
        where = f"{key.kind} {key.namespace}/{key.name}"
        if isinstance(error, Unavailable):
            delay = self._queue.retry(key, self._settings.outage_retry_seconds)
            log.warning("%s: the API server is not available, again in %.1f s: %s", where, delay, error)
            return
        if isinstance(error, Conflict | NotFound):
            # The cache is behind, perhaps because a watch has lost something: ask, instead of waiting for it.
            await self._refresh(key)
        delay = self._queue.retry(key, self._settings.refusal_retry_seconds)
        if isinstance(error, Conflict | NotFound):
            log.debug("%s: changed meanwhile, again in %.3f s: %s", where, delay, error)
        elif isinstance(error, ClusterError):
            log.info("%s: refused, again in %.1f s: %s", where, delay, error)
        else:
            log.error("%s: failed, again in %.1f s", where, delay, exc_info=error)

    async def _refresh(self, key: Key) -> None:
        entry = self._cache.entry(key)
        try:
            self.notify(self._cache.put(await self._cluster.get(*key)))
        except NotFound:
            if entry is not None:
                self.notify(self._cache.vanish(entry.uid))
        except ClusterError as error:
            log.debug("%s/%s could not be read again: %s", key.namespace, key.name, error)

    async def _pass(self, key: Key) -> float | None:
        """Observe, decide, act. Answers after how many seconds to look again."""
        resource = self._cache.get(key)
        if resource is None:
            self._forget(key)
            return None
        if resource["metadata"].get("deletionTimestamp"):
            return None  # the garbage collector takes its children
        kind = self._kinds[key.kind]
        settings = settings_of(self._settings, resource)
        references = kind.references(resource, settings)
        self._cache.refer(key, references)
        observed = await self._observe(key, resource, references, settings)
        outcome = kind.reconcile(resource, observed, self._now())
        denials = await self._make(key, outcome)
        if denials != observed.denials:
            self._remember(key, denials)
            # What was made before the refusal is seen, and the refusal gets into this very status.
            observed = await self._observe(key, resource, references, settings)
            outcome = kind.reconcile(resource, observed, self._now())
        await self._write_status(resource, outcome)
        for child in outcome.delete:
            await self._delete(key.namespace, child)
        for event in outcome.events:
            await self._recorder.post(resource, event)
        if denials:
            raise Denied("; ".join(f"{name}: {message}" for name, message in denials.items()))
        # Events are not watched: while one is wanted, somebody has to look again.
        wishes = (outcome.wake_after, self._explanations.next_look(_doubts(observed)))
        return min((wish for wish in wishes if wish is not None), default=None)

    async def _observe(
        self, key: Key, resource: Manifest, references: tuple[Reference, ...], settings: Settings
    ) -> Observed:
        children = self._cache.children(key, resource["metadata"]["uid"])
        jobs, pods = ([str(item["metadata"]["uid"]) for item in children.get(kind, ())] for kind in ("Job", "Pod"))
        found = {
            **ancestors(resource, lambda above: self._cache.get(Place(above.kind, key.namespace, above.name))),
            **{reference: await self._look_up(key.namespace, reference) for reference in references},
        }
        said = self._cache.progress.get(key)
        observed = Observed(
            settings=settings_for(settings, claim_among(found, settings)),
            children=children,
            references=found,
            progress=said if isinstance(said, Progress) else None,
            batch_progress=said if isinstance(said, BatchProgress) else None,
            proofs={uid: self._cache.proofs[uid] for uid in pods if uid in self._cache.proofs},
            traffic={uid: self._cache.traffic[uid] for uid in pods if uid in self._cache.traffic},
            admissions={uid: self._cache.admissions[uid] for uid in jobs if uid in self._cache.admissions},
            denials=dict(self._denials.get(key, {})),
        )
        return replace(observed, reports=await self._explanations.about(key.namespace, _doubts(observed)))

    async def _look_up(self, namespace: str, reference: Reference) -> Manifest | None:
        place = Place(reference.kind, namespace, reference.name)
        if place.kind in OWN_KINDS:
            return self._cache.get(place)
        known = self._memo.get(place)
        now = self._now()
        if known is not None and (now - known[0]).total_seconds() < self._settings.reference_seconds:
            return known[1]
        try:
            found: Manifest | None = await self._cluster.get(*place)
        except NotFound:
            found = None
        if len(self._memo) >= LARGEST_MEMO:
            self._memo.clear()
        self._memo[place] = (now, found)
        return found

    async def _make(self, key: Key, outcome: Outcome) -> dict[str, str]:
        """Create and apply. Stops at the first refusal, as later objects may need earlier ones, and answers it."""
        manifest: Manifest = {}
        try:
            for manifest in outcome.create:
                await self._create(manifest)
            for manifest in outcome.apply:
                await self._apply(key, manifest)
        except Denied as error:
            return {manifest["metadata"]["name"]: str(error)}
        return {}

    async def _create(self, manifest: Manifest) -> None:
        entry = self._cache.entry(_place(manifest))
        if entry is not None and entry.controller == controller_uid(manifest):
            return
        self._take(await self._cluster.create(manifest))

    async def _apply(self, key: Key, manifest: Manifest) -> None:
        if manifest["kind"] not in CHILD_KINDS:
            await self._apply_unwatched(key, manifest)
            return
        place, wanted = _place(manifest), digest(manifest)
        entry, last = self._cache.entry(place), self._applied.get(key, {}).get(place)
        if entry is not None and last == Applied(wanted, entry.uid, entry.content):
            return
        if entry is None or entry.controller != controller_uid(manifest):
            await self._must_be_free(manifest)
        self._take(await self._cluster.apply(manifest))
        applied = self._cache.entry(place)
        if applied is not None:
            self._applied.setdefault(key, {})[place] = Applied(wanted, applied.uid, applied.content)

    async def _must_be_free(self, manifest: Manifest) -> None:
        """The watches show nothing of this name that is ours; they show only what has our labels, and late."""
        try:
            found = await self._cluster.get(*_place(manifest))
        except NotFound:
            return
        must_be_ours(manifest, found)

    async def _apply_unwatched(self, key: Key, manifest: Manifest) -> None:
        """Nobody tells of these, so each pass has looked: `references` named them."""
        place, wanted = _place(manifest), digest(manifest)
        found = await self._look_up(key.namespace, Reference(place.kind, place.name))
        last = self._applied.get(key, {}).get(place)
        if found is not None and last == _applied(wanted, found):
            return
        must_be_ours(manifest, found)
        try:
            applied = await self._cluster.apply(manifest)
        except NotFound as error:
            kind = f"{manifest['apiVersion']} {manifest['kind']}"
            raise Denied(f"the cluster does not know {kind}: install its CRDs, or take out the field") from error
        self._memo.pop(place, None)
        self._applied.setdefault(key, {})[place] = _applied(wanted, applied)

    async def _write_status(self, resource: Manifest, outcome: Outcome) -> None:
        if outcome.status is None:
            return
        # As JSON has it: tuples are lists.
        status = json.loads(json.dumps(outcome.status))
        if status == (resource.get("status") or {}):
            return
        written = await self._cluster.replace_status({**resource, "status": status})
        metrics.STATUS_WRITES.labels(resource["kind"]).inc()
        before, namespace = resource.get("status") or {}, resource["metadata"]["namespace"]
        for attempt in accounting.spent(before, status):
            metrics.GPU_SECONDS.labels(namespace, attempt.outcome).inc(attempt.gpu_seconds)
        if accounting.has_failed_gate(before, status):
            metrics.GATE_FAILURES.labels(namespace).inc()
        if reason := accounting.failure(before, status):
            metrics.FAILURES.labels(resource["kind"], reason).inc()
        if (seconds := accounting.waited(before, status)) is not None:
            metrics.QUEUE_WAIT_SECONDS.observe(seconds)
        for result in accounting.tried(before, status) if resource["kind"] == "ModelDeployment" else ():
            metrics.ADAPTER_RESULTS.labels(namespace, result.state).inc()
            if result.seconds is not None:
                metrics.ADAPTER_SECONDS.observe(result.seconds)
        if written.get("status") != status:
            # Each pass would find a difference and write again: with back-off, and without being woken by the write.
            self._cache.put(written)
            raise StatusNotKeptError(f"sent {status}, stored {written.get('status')}")
        self._take(written)

    async def _delete(self, namespace: str, child: ChildName) -> None:
        await self._cluster.delete(child.kind, namespace, child.name, child.uid, foreground=child.foreground)
        self._memo.pop(Place(child.kind, namespace, child.name), None)
        self._cache.doom(child.uid)

    def _take(self, manifest: Manifest) -> None:
        """Take an answer into the cache at once: the next pass must not decide from what was before."""
        self._memo.pop(_place(manifest), None)
        self.notify(self._cache.put(manifest))

    def _remember(self, key: Key, denials: dict[str, str]) -> None:
        self._denials.pop(key, None)
        if denials:
            self._denials[key] = denials

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)
        self._denials.pop(key, None)
        self._applied.pop(key, None)
        self._cache.progress.pop(key, None)


def _doubts(observed: Observed) -> list[Doubt]:
    claims = [item for name, item in observed.references.items() if name.kind == "PersistentVolumeClaim" and item]
    return in_doubt(observed.children, claims)


def _place(manifest: Manifest) -> Place:
    return Place(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _applied(wanted: str, found: Manifest) -> Applied:
    return Applied(wanted, str(found["metadata"]["uid"]), digest({"spec": found.get("spec")}))
