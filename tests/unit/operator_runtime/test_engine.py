"""The engine with a toy kind: one Job, one Service, and a status that says how the Job went."""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from finetune_operator.errors import Conflict, Denied, NotFound, Unavailable
from finetune_operator.manifests.naming import Manifest
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import Outcome
from finetune_operator.settings import Settings
from tests import factories
from tests.unit.operator_runtime.fakes import (
    NAMESPACE,
    Crash,
    FakeCluster,
    make_job,
    make_resource,
)
from tests.unit.operator_runtime.process import TUNE, Process, finish_job, reconcile, run_to_the_end, status_of


async def test_a_whole_life(cluster: FakeCluster) -> None:
    await run_to_the_end(cluster)
    assert cluster.writes == [
        "create Job tune-1",
        "apply Service tune",
        "status FineTuneJob tune",
        "status FineTuneJob tune",
        "status FineTuneJob tune",
        "delete Job tune-1",
    ]
    assert cluster.events == [("Complete", 1)]
    assert status_of(cluster) == {"phase": "Complete"}


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_around_any_write_changes_nothing_in_the_end(
    cluster: FakeCluster, number: int, moment: str
) -> None:
    async def live() -> None:
        process = Process(cluster)
        await process.settle()
        if status_of(cluster).get("phase") == "Running":
            finish_job(cluster)
            await process.settle()

    def crash(what: str = "write") -> None:
        if len(cluster.writes) == number + (moment == "after") and not what.startswith(("get", "list", "record")):
            raise Crash

    if moment == "before":
        cluster.fail = crash
    else:
        cluster.after_write = crash
    with pytest.raises(Crash):
        await live()
    cluster.fail, cluster.after_write = lambda _: None, lambda: None
    for _ in range(3):
        await live()
    assert status_of(cluster) == {"phase": "Complete"}
    assert cluster.names("Job") == []
    assert cluster.names("Service") == ["tune"]
    assert cluster.writes.count("create Job tune-1") == 1


async def test_a_pass_with_nothing_to_do_writes_nothing(cluster: FakeCluster) -> None:
    process = Process(cluster)
    await process.settle()
    cluster.writes.clear()
    for _ in range(3):
        process.engine.notify([TUNE])
        await process.settle()
    assert cluster.writes == []


async def test_status_is_written_before_anything_is_deleted(cluster: FakeCluster) -> None:
    await run_to_the_end(cluster)
    assert cluster.writes.index("delete Job tune-1") > max(
        number for number, write in enumerate(cluster.writes) if write.startswith("status")
    )


async def test_nothing_is_deleted_and_no_event_posted_when_the_status_was_not_written(cluster: FakeCluster) -> None:
    process = Process(cluster)
    await process.settle()
    finish_job(cluster)

    def overtaken(what: str) -> None:
        if what.startswith("status"):
            raise Conflict("modified")

    cluster.fail = overtaken
    await process.settle()
    assert cluster.names("Job") == ["tune-1"]
    assert cluster.events == []
    cluster.fail = lambda _: None
    await process.wait(1)
    assert status_of(cluster) == {"phase": "Complete"}
    assert cluster.names("Job") == []


async def test_a_conflict_reads_the_resource_again(cluster: FakeCluster) -> None:
    process = Process(cluster)
    cluster.add({**cluster.objects[TUNE], "spec": {"rank": 2}})
    key = process.queue.take()
    await process.engine.handle(key)  # the watch has not delivered the change
    process.queue.done(key)
    assert (process.cache.get(TUNE) or {})["spec"] == {"rank": 2}
    await process.wait(1)
    assert status_of(cluster) == {"phase": "Running"}


async def test_a_resource_that_vanished_unseen_is_forgotten(cluster: FakeCluster) -> None:
    process = Process(cluster)
    cluster.take_away("FineTuneJob", "tune")
    key = process.queue.take()
    await process.engine.handle(key)
    process.queue.done(key)
    assert process.cache.get(TUNE) is None


async def test_a_refusal_reaches_the_decision_in_the_same_pass_and_is_tried_again(cluster: FakeCluster) -> None:
    process = Process(cluster)
    cluster.denied["tune-1"] = Denied("exceeded quota: gpus")
    await process.settle()
    assert status_of(cluster) == {"phase": "Pending", "message": "exceeded quota: gpus"}
    writes = list(cluster.writes)
    for _ in range(4):
        await process.wait(1)
    assert cluster.writes == writes, "the same refusal is written once"
    del cluster.denied["tune-1"]
    await process.wait(300)
    assert status_of(cluster) == {"phase": "Running"}


async def test_objects_after_a_refused_one_are_not_made(cluster: FakeCluster) -> None:
    cluster.denied["tune-1"] = Denied("exceeded quota")
    await Process(cluster).settle()
    assert cluster.names("Service") == []


@pytest.mark.parametrize("change", [{"spec": {"ports": [1]}}, None], ids=["edited", "deleted"])
async def test_an_applied_child_is_put_right(cluster: FakeCluster, change: Manifest | None) -> None:
    process = Process(cluster)
    await process.settle()
    cluster.writes.clear()
    if change is None:
        process.engine.notify(process.cache.remove(cluster.take_away("Service", "tune")))
    else:
        cluster.add({**cluster.objects[("Service", NAMESPACE, "tune")], **change})
    await process.settle()
    assert cluster.writes == ["apply Service tune"]
    assert cluster.objects[("Service", NAMESPACE, "tune")]["spec"] == {}


async def test_a_name_that_somebody_else_holds_is_waited_for(cluster: FakeCluster) -> None:
    process = Process(cluster)
    other = cluster.add(make_resource(name="other"))
    cluster.add(make_job(other, "tune-1"))
    await process.settle()
    assert status_of(cluster) == {}
    cluster.take_away("Job", "tune-1")
    await process.wait(1)
    assert status_of(cluster) == {"phase": "Running"}


async def test_an_outage_is_waited_out_with_a_back_off_that_stays_short(cluster: FakeCluster) -> None:
    process = Process(cluster)

    def away(_: str) -> None:
        raise Unavailable("connection refused")

    cluster.fail = away
    for _ in range(20):
        await process.wait(30)
    cluster.fail = lambda _: None
    await process.wait(30)
    assert status_of(cluster) == {"phase": "Running"}


async def test_a_bug_in_one_resource_stops_nobody_else(cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.add(make_resource(name="bad"))

    def sometimes(resource: Manifest, observed: Observed, now: datetime) -> Outcome:
        if resource["metadata"]["name"] == "bad":
            raise ZeroDivisionError
        return reconcile(resource, observed, now)

    await Process(cluster, decide=sometimes).settle()
    assert status_of(cluster) == {"phase": "Running"}
    assert "ZeroDivisionError" in caplog.text


async def test_a_status_that_the_server_cuts_is_not_written_for_ever(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    store = cluster.replace_status

    async def prune(manifest: Manifest) -> Manifest:
        return await store({**manifest, "status": {}})

    cluster.replace_status = prune  # type: ignore[method-assign]
    process = Process(cluster)
    await process.settle()
    assert len(cluster.writes) < 6
    assert "StatusNotKeptError" in caplog.text


async def test_a_resource_being_deleted_is_left_alone(cluster: FakeCluster) -> None:
    cluster.add(make_resource(metadata={"deletionTimestamp": "2026-11-21T00:00:00Z"}))
    await Process(cluster).settle()
    assert cluster.writes == []


async def test_references_come_from_the_cache_or_are_read_and_kept_for_seconds(cluster: FakeCluster) -> None:
    seen: list[Observed] = []

    def look(_: Manifest, observed: Observed, __: datetime) -> Outcome:
        seen.append(observed)
        return Outcome()

    rows, plan, claim = (
        Reference("Dataset", "rows"),
        Reference("ConfigMap", "plan"),
        Reference("PersistentVolumeClaim", "pvc"),
    )
    process = Process(cluster, decide=look, references=(rows, plan, claim))
    cluster.add(make_resource("Dataset", "rows"))
    cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plan", "namespace": NAMESPACE}})
    await process.settle()
    found = seen[-1].references
    assert (found[rows] or {})["kind"] == "Dataset"
    assert (found[plan] or {})["kind"] == "ConfigMap"
    assert found[claim] is None
    process.engine.notify([TUNE])
    await process.settle()
    assert cluster.reads == ["get ConfigMap plan", "get PersistentVolumeClaim pvc"]
    process.clock.advance(10)
    process.engine.notify([TUNE])
    await process.settle()
    assert len(cluster.reads) == 4
    passes = len(seen)
    cluster.add(make_resource("Dataset", "rows"))
    await process.settle()
    assert len(seen) == passes + 1, "a change of what is referred to is looked at"


async def test_wake_after_brings_the_next_pass(cluster: FakeCluster) -> None:
    passes: list[datetime] = []

    def tick(_: Manifest, __: Observed, now: datetime) -> Outcome:
        passes.append(now)
        return Outcome(wake_after=10)

    process = Process(cluster, decide=tick)
    await process.settle()
    await process.wait(9)
    assert len(passes) == 1
    await process.wait(1)
    assert len(passes) == 2


async def test_work_ends_when_the_queue_is_closed_and_passes_are_done(cluster: FakeCluster) -> None:
    process = Process(cluster)
    process.engine._leads = False
    process.queue = WorkQueue(asyncio.get_running_loop())
    process.engine._queue = process.queue
    reached, go_on = asyncio.Event(), asyncio.Event()
    create = cluster.create

    async def slow(manifest: Manifest) -> Manifest:
        reached.set()
        await go_on.wait()
        return await create(manifest)

    cluster.create = slow  # type: ignore[method-assign]
    working = asyncio.create_task(process.engine.work())
    await reached.wait()
    process.queue.close()
    go_on.set()
    await working
    assert "status FineTuneJob tune" in cluster.writes


async def test_the_standby_queues_nothing(cluster: FakeCluster) -> None:
    process = Process(cluster)
    process.engine._leads = False
    process.queue.take()
    process.queue.done(TUNE)
    process.engine.notify([TUNE])
    assert len(process.queue) == 0


async def test_not_found_on_a_create_is_retried(cluster: FakeCluster) -> None:
    process = Process(cluster)

    def gone(what: str) -> None:
        if what.startswith("create"):
            raise NotFound("namespaces team not found")

    cluster.fail = gone
    await process.settle()
    cluster.fail = lambda _: None
    await process.wait(1)
    assert status_of(cluster) == {"phase": "Running"}


def test_settings_are_passed_on() -> None:
    process = Process(FakeCluster())
    assert replace(Observed(settings=Settings()), denials={}).settings == process.engine._settings


def test_a_job_whose_pod_is_refused_is_explained_and_looked_at_again(cluster: FakeCluster) -> None:
    seen: list[str] = []

    def decide(resource: Manifest, observed: Observed, _: datetime) -> Outcome:
        seen.extend(report.message for report in observed.reports.by_uid.values())
        return Outcome(create=() if observed.of("Job") else (make_job(resource),))

    process = Process(cluster, decide=decide)

    async def live() -> None:
        await process.settle()
        process.clock.advance(60)
        job = cluster.objects[("Job", NAMESPACE, "tune-1")]
        cluster.said.append(factories.event(job, "FailedCreate", "exceeded quota: pods"))
        await process.settle()
        assert seen == ["the pod was refused: exceeded quota: pods"]
        cluster.add(factories.make_pod(job))
        await process.settle()
        reads = list(cluster.reads)
        await process.wait(600)
        assert cluster.reads == reads, "a Job whose pod runs is not asked about"

    asyncio.run(live())


async def test_passes_without_requests_let_the_lease_be_renewed_between_them(cluster: FakeCluster) -> None:
    for number in range(50):
        cluster.add(make_resource(name=f"other-{number}"))
    process = Process(cluster, decide=lambda *_: Outcome())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while len(process.queue):
            turns += 1
            await asyncio.sleep(0)
        process.queue.close()

    await asyncio.gather(process.engine.work(), other())
    assert turns > 50 / Settings().workers
