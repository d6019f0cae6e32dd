import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from finetune_operator import metrics, sync
from finetune_operator.cache import Cache
from finetune_operator.cluster import Heads
from finetune_operator.entries import Key, Place
from finetune_operator.errors import Unavailable
from finetune_operator.settings import Settings
from finetune_operator.sync import Synchroniser
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeCluster, make_job, make_resource

TUNE = Key("FineTuneJob", NAMESPACE, "tune")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(sync, "FIRST_RETRY", 0.0)
    return FakeCluster()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is tested sets no event
            await asyncio.sleep(0.001)


class Watched:
    def __init__(self, cluster: FakeCluster, namespaces: tuple[str, ...] = (), period: float = 600.0) -> None:
        self.cache = Cache()
        self.notified: list[Key] = []
        settings = Settings(namespaces=namespaces, resync_seconds=period, watch_lag_seconds=0, relist_seconds=0)
        self.sync = Synchroniser(cluster, self.cache, self.notify, settings)

    def notify(self, keys: Iterable[Key]) -> None:
        self.notified += keys


async def test_filling_lists_everything_and_then_it_is_synced(cluster: FakeCluster) -> None:
    tune = cluster.add(make_resource())
    cluster.add(make_job(tune))
    watched = Watched(cluster)
    assert not watched.sync.is_synced
    await watched.sync.fill()
    assert watched.sync.is_synced
    assert set(watched.cache.children(TUNE, tune["metadata"]["uid"])) == {"Job"}


async def test_filling_outlasts_an_outage(cluster: FakeCluster) -> None:
    attempts = []

    def fail(what: str) -> None:
        attempts.append(what)
        if len(attempts) < 4:
            raise Unavailable("away")

    cluster.fail = fail
    watched = Watched(cluster)
    await watched.sync.fill()
    assert watched.sync.is_synced


async def test_only_our_namespaces_are_listed(cluster: FakeCluster) -> None:
    cluster.add(make_resource())
    cluster.add(make_resource(metadata={"namespace": "elsewhere"}))
    watched = Watched(cluster, namespaces=(NAMESPACE,))
    await watched.sync.fill()
    assert list(watched.cache.keys()) == [TUNE]
    await watched.sync.sweep("FineTuneJob")
    assert list(watched.cache.keys()) == [TUNE]


async def test_a_sweep_finds_a_deletion_that_no_watch_reported(cluster: FakeCluster) -> None:
    cluster.add(make_resource())
    watched = Watched(cluster)
    await watched.sync.fill()
    cluster.take_away("FineTuneJob", "tune")
    watched.notified.clear()
    await watched.sync.sweep("FineTuneJob")
    assert watched.cache.get(TUNE) is None
    assert watched.notified == [TUNE]


async def test_a_sweep_finds_a_change_that_no_watch_reported(cluster: FakeCluster) -> None:
    cluster.add(make_resource())
    watched = Watched(cluster)
    await watched.sync.fill()
    cluster.add(make_resource(spec={"rank": 2}))
    await watched.sync.sweep("FineTuneJob")
    assert (watched.cache.get(TUNE) or {})["spec"] == {"rank": 2}


async def test_a_sweep_of_what_is_known_reads_no_object(cluster: FakeCluster) -> None:
    cluster.add(make_resource())
    watched = Watched(cluster)
    await watched.sync.fill()
    cluster.reads.clear()
    await watched.sync.sweep("FineTuneJob")
    assert cluster.reads == ["list FineTuneJob"]


async def test_an_object_made_during_a_sweep_is_not_swept_away(cluster: FakeCluster) -> None:
    watched = Watched(cluster)
    await watched.sync.fill()
    heads = cluster.heads

    async def listing(kind: str, namespace: str | None) -> AsyncIterator[Heads]:
        async for page in heads(kind, namespace):
            watched.sync.observe("ADDED", cluster.add(make_resource()))
            yield page

    cluster.heads = listing  # type: ignore[method-assign]
    await watched.sync.sweep("FineTuneJob")
    assert watched.cache.get(TUNE) is not None


async def test_the_first_watch_goes_on_from_the_first_list(cluster: FakeCluster) -> None:
    watched = Watched(cluster)
    await watched.sync.fill()
    cluster.reads.clear()
    versions = {kind: await watched.sync.watched_from(kind, None) for kind in sync.KINDS}
    assert cluster.reads == []
    assert all(versions.values())
    assert len(set(versions.values())) == len(sync.KINDS)


async def test_it_is_told_when_everything_was_last_compared(cluster: FakeCluster) -> None:
    before = metrics.SWEEP_LAST_END._value.get()
    watched = Watched(cluster)
    await watched.sync.fill()
    assert metrics.SWEEP_LAST_END._value.get() > before


async def test_a_watch_that_was_away_too_long_lists_again_and_brings_a_sweep_at_once(cluster: FakeCluster) -> None:
    tune = cluster.add(make_resource())
    watched = Watched(cluster)
    await watched.sync.fill()
    first = await watched.sync.watched_from("FineTuneJob", None)
    cluster.take_away("FineTuneJob", "tune")
    cluster.add(make_resource(name="other"))
    sweeping = asyncio.create_task(watched.sync.run())
    await asyncio.sleep(0)
    assert int(await watched.sync.watched_from("FineTuneJob", None)) > int(first)
    assert watched.cache.get(Key("FineTuneJob", NAMESPACE, "other")) is not None
    await until(lambda: watched.cache.get(TUNE) is None)
    sweeping.cancel()
    watched.sync.observe("MODIFIED", tune)
    assert watched.cache.get(TUNE) is None


async def test_sweeps_come_by_themselves(cluster: FakeCluster) -> None:
    cluster.add(make_resource())
    watched = Watched(cluster, period=0.01)
    await watched.sync.fill()
    cluster.take_away("FineTuneJob", "tune")
    sweeping = asyncio.create_task(watched.sync.run())
    await until(lambda: watched.cache.get(TUNE) is None)
    sweeping.cancel()


async def test_watch_events_are_taken_in(cluster: FakeCluster) -> None:
    watched = Watched(cluster)
    watched.sync.observe("ADDED", cluster.add(make_resource()))
    assert watched.cache.get(TUNE) is not None
    watched.sync.observe("DELETED", cluster.take_away("FineTuneJob", "tune"))
    assert watched.cache.get(Place(*TUNE)) is None
    assert watched.notified == [TUNE, TUNE]
