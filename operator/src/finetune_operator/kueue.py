"""Asks Kueue about our Jobs that wait in its queues. By polling: Kueue may be installed or removed at any time.

That a Job is admitted or preempted is seen at once on the Job itself, by the watch; only why it waits, and how many
wait before it, is asked for here. At most `AT_ONCE` Jobs a time, those first that were not asked about for longest.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

from finetune_operator.cache import Cache
from finetune_operator.cluster import JOB_UID, Cluster
from finetune_operator.entries import Key, QueuedJob
from finetune_operator.errors import ClusterError, NotFound
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.admission import Admission

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Jobs that are asked about in one round: no more requests for Workloads, and no more for queues."""


class QueuePoller:
    """Keeps `cache.admissions`."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        look_at: Callable[[Key, float], None],
        period: float,
        per_second: float,
    ) -> None:
        """`look_at(key, seconds)` is called for jobs with news, spread so that no more than `per_second` come due."""
        self._cluster = cluster
        self._cache = cache
        self._look_at = look_at
        self._period = period
        self._per_second = per_second
        self._round = 0
        self._asked: dict[str, int] = {}
        """Uid of a Job -> the round that it was asked about last."""

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.poll()
            await asyncio.sleep(self._period)

    async def poll(self) -> None:
        """One round."""
        queued = {job.uid: job for job in self._cache.queued_jobs()}
        for known in (self._cache.admissions, self._asked):
            for uid in known.keys() - queued.keys():
                del known[uid]
        self._round += 1
        chosen = sorted(queued.values(), key=lambda job: self._asked.get(job.uid, 0))[:AT_ONCE]
        by_namespace: defaultdict[str, list[QueuedJob]] = defaultdict(list)
        for job in chosen:
            self._asked[job.uid] = self._round
            by_namespace[job.key.namespace].append(job)
        changed: list[Key] = []
        for namespace, jobs in by_namespace.items():
            try:
                answers = await self._ask(namespace, jobs)
            except ClusterError as error:
                log.warning("Kueue's Workloads in namespace %s cannot be read: %s", namespace, error)
                continue
            for job in jobs:
                if self._cache.admissions.get(job.uid) != answers[job.uid]:
                    self._cache.admissions[job.uid] = answers[job.uid]
                    changed.append(job.key)
        for turn, key in enumerate(changed):
            self._look_at(key, turn / self._per_second)

    async def _ask(self, namespace: str, jobs: list[QueuedJob]) -> dict[str, Admission]:
        try:
            found = await self._cluster.workloads(namespace, [job.uid for job in jobs])
        except NotFound:
            return {job.uid: Admission(installed=False) for job in jobs}
        workloads = {str(item["metadata"]["labels"][JOB_UID]): item for item in found}
        pending = {queue: await self._pending(namespace, queue) for queue in {job.queue for job in jobs}}
        return {
            job.uid: Admission.of(workloads[job.uid], pending[job.queue]) if job.uid in workloads else Admission()
            for job in jobs
        }

    async def _pending(self, namespace: str, queue: str) -> tuple[Manifest, ...]:
        """What waits in a queue; nothing where that cannot be known: a place in it is a courtesy."""
        try:
            return await self._cluster.pending_workloads(namespace, queue)
        except ClusterError as error:
            log.debug("who waits in queue %s/%s is not known: %s", namespace, queue, error)
            return ()
