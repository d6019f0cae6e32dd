import pytest

from finetune_operator.errors import Denied
from finetune_operator.events import BURST, LONGEST_NOTE, REFILL_SECONDS, Recorder
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.outcome import Event
from tests.unit.operator_runtime.fakes import FakeClock, FakeCluster, make_resource

DONE = Event("Normal", "Complete", "it is done")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def recorder(cluster: FakeCluster, clock: FakeClock) -> Recorder:
    return Recorder(cluster, "replica-1", clock.now)


@pytest.fixture
def tune(cluster: FakeCluster) -> Manifest:
    return cluster.add(make_resource())


async def test_the_same_words_are_one_event_with_a_count(
    recorder: Recorder, cluster: FakeCluster, tune: Manifest
) -> None:
    names = set()
    record = cluster.record

    async def keep(event: Manifest, count: int) -> None:
        names.add(event["metadata"]["name"])
        await record(event, count)

    cluster.record = keep  # type: ignore[method-assign]
    for _ in range(3):
        await recorder.post(tune, DONE)
    assert cluster.events == [("Complete", 1), ("Complete", 2), ("Complete", 3)]
    assert len(names) == 1
    await recorder.post(tune, Event("Normal", "Complete", "in other words"))
    assert len(names) == 2


async def test_an_object_has_a_burst_and_then_one_every_five_minutes(
    recorder: Recorder, cluster: FakeCluster, tune: Manifest, clock: FakeClock
) -> None:
    for _ in range(BURST + 10):
        await recorder.post(tune, DONE)
    assert len(cluster.events) == BURST
    clock.advance(REFILL_SECONDS)
    for _ in range(3):
        await recorder.post(tune, DONE)
    assert len(cluster.events) == BURST + 1
    await recorder.post(cluster.add(make_resource(name="other")), DONE)
    assert len(cluster.events) == BURST + 2


async def test_an_event_that_is_refused_troubles_nobody(
    recorder: Recorder, cluster: FakeCluster, tune: Manifest
) -> None:
    def refuse(_: str) -> None:
        raise Denied("the namespace is being terminated")

    cluster.fail = refuse
    await recorder.post(tune, DONE)


def test_a_note_is_cut_to_what_the_server_takes(recorder: Recorder, tune: Manifest) -> None:
    manifest = recorder._manifest(tune, Event("Warning", "Failed", "ü" * 2000))
    assert len(manifest["note"].encode()) <= LONGEST_NOTE
    assert manifest["regarding"]["uid"] == tune["metadata"]["uid"]
