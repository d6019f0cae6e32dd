"""The engine of one operator process on a cluster that is only pretended."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from finetune_operator.cache import Cache
from finetune_operator.engine import Engine
from finetune_operator.entries import Key
from finetune_operator.events import Recorder
from finetune_operator.manifests.naming import Manifest
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.kinds import Kind
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Event, Outcome
from finetune_operator.settings import Settings
from tests.unit.operator_runtime.fakes import (
    NAMESPACE,
    FakeClock,
    FakeCluster,
    make_child,
    make_job,
)

TUNE = Key("FineTuneJob", NAMESPACE, "tune")


def reconcile(resource: Manifest, observed: Observed, _: datetime) -> Outcome:
    """Run a Job once, behind a Service; latch how it ended, then delete it."""
    before = resource.get("status") or {}
    service = make_child("Service", resource, "tune", role="serve")
    if before.get("phase") == "Complete":
        return Outcome(delete=_live(observed))
    jobs = observed.of("Job")
    if not jobs:
        denied = observed.denials.get("tune-1")
        status = {"phase": "Pending", "message": denied} if denied else {"phase": "Pending"}
        return Outcome(create=(make_job(resource),), apply=(service,), status=status, wake_after=60)
    if jobs[0].get("status", {}).get("succeeded"):
        done = Event("Normal", "Complete", "it is done")
        return Outcome(apply=(service,), status={"phase": "Complete"}, delete=_live(observed), events=(done,))
    return Outcome(apply=(service,), status={"phase": "Running"})


def _live(observed: Observed) -> tuple[ChildName, ...]:
    metadata = [job["metadata"] for job in observed.of("Job") if "deletionTimestamp" not in job["metadata"]]
    return tuple(ChildName("Job", job["name"], job["uid"]) for job in metadata)


@dataclass
class Process:
    """One life of the operator."""

    cluster: FakeCluster
    clock: FakeClock = field(default_factory=FakeClock)
    decide: Callable[[Manifest, Observed, datetime], Outcome] = reconcile
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue(self.clock, jitter=lambda: 1.0)
        kind = Kind("FineTuneJob", "finetunejobs", lambda *_: self.references, self.decide)
        self.engine = Engine(
            cluster=self.cluster,
            cache=self.cache,
            queue=self.queue,
            kinds={"FineTuneJob": kind},
            settings=Settings(),
            recorder=Recorder(self.cluster, "test", self.clock.now),
            now=self.clock.now,
        )
        self.engine._leads = True
        self.listen()

    def listen(self) -> None:
        """What a list and the watches would deliver."""
        for manifest in list(self.cluster.objects.values()):
            self.engine.notify(self.cache.put(manifest))
        for key in ("Job", "Service", "FineTuneJob"):
            for uid in self.cache.versions(key):
                if uid not in [found["metadata"]["uid"] for found in self.cluster.objects.values()]:
                    self.engine.notify(self.cache.vanish(uid))

    async def settle(self) -> None:
        """Work until nothing is left to do."""
        for _ in range(50):
            self.listen()
            if not len(self.queue):
                return
            key = self.queue.take()
            await self.engine.handle(key)
            self.queue.done(key)
        raise AssertionError("the engine does not come to rest")

    async def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()


def status_of(cluster: FakeCluster) -> dict[str, Any]:
    return dict(cluster.objects[TUNE].get("status") or {})


def finish_job(cluster: FakeCluster) -> None:
    job = cluster.objects[("Job", NAMESPACE, "tune-1")]
    cluster.add({**job, "status": {"succeeded": 1}})


async def run_to_the_end(cluster: FakeCluster) -> None:
    process = Process(cluster)
    await process.settle()
    finish_job(cluster)
    await process.settle()
