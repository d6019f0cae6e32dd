from collections.abc import Callable

import pytest

from finetune_operator.errors import Unavailable
from finetune_operator.leader import Elector, LeadershipLostError
from finetune_operator.manifests.naming import MANAGER
from tests.unit.operator_runtime.fakes import FakeClock, FakeCluster


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def candidate(clock: FakeClock, cluster: FakeCluster) -> Callable[[str], Elector]:
    def make(identity: str) -> Elector:
        return Elector(
            cluster, namespace="system", identity=identity, duration=15, renew_within=10, retry=2, monotonic=clock.time
        )

    return make


def refuse(_: str) -> None:
    raise Unavailable("away")


async def test_the_first_leads_and_the_second_waits(candidate: Callable[[str], Elector], clock: FakeClock) -> None:
    one, two = candidate("one"), candidate("two")
    assert await one.attempt()
    for _ in range(20):
        clock.advance(2)
        assert await one.attempt()
        assert not await two.attempt()


async def test_a_dead_leader_is_replaced_after_the_lease_by_our_own_clock(
    candidate: Callable[[str], Elector], clock: FakeClock, cluster: FakeCluster
) -> None:
    one, two = candidate("one"), candidate("two")
    await one.attempt()
    assert not await two.attempt()
    clock.advance(14)
    assert not await two.attempt()
    clock.advance(2)
    assert await two.attempt()
    assert cluster.objects[("Lease", "system", MANAGER)]["spec"]["leaseTransitions"] == 2
    with pytest.raises(LeadershipLostError):
        await one.attempt()


async def test_a_leader_that_cannot_renew_gives_up_before_others_take_over(
    candidate: Callable[[str], Elector], clock: FakeClock, cluster: FakeCluster
) -> None:
    one = candidate("one")
    await one.attempt()
    cluster.fail = refuse
    clock.advance(8)
    assert await one.attempt()
    clock.advance(2)
    with pytest.raises(LeadershipLostError):
        await one.attempt()


async def test_a_leader_survives_a_short_outage(
    candidate: Callable[[str], Elector], clock: FakeClock, cluster: FakeCluster
) -> None:
    one = candidate("one")
    await one.attempt()
    cluster.fail = refuse
    clock.advance(8)
    assert await one.attempt()
    cluster.fail = lambda _: None
    assert await one.attempt()
    clock.advance(8)
    assert await one.attempt()


async def test_a_released_lease_is_taken_at_once(candidate: Callable[[str], Elector], clock: FakeClock) -> None:
    one, two = candidate("one"), candidate("two")
    await one.attempt()
    assert not await two.attempt()
    await one.release()
    clock.advance(2)
    assert await two.attempt()


async def test_a_restarted_replica_of_the_same_name_goes_on_at_once(candidate: Callable[[str], Elector]) -> None:
    await candidate("one").attempt()
    assert await candidate("one").attempt()


async def test_of_two_that_write_at_once_only_one_leads(
    candidate: Callable[[str], Elector], cluster: FakeCluster, clock: FakeClock
) -> None:
    one, two, three = candidate("one"), candidate("two"), candidate("three")
    await one.attempt()
    await two.attempt()
    await three.attempt()
    clock.advance(16)
    read = cluster.get

    async def read_and_be_overtaken(kind: str, namespace: str, name: str) -> dict[str, object]:
        lease = await read(kind, namespace, name)
        cluster.get = read  # type: ignore[method-assign]
        assert await three.attempt()
        return lease

    cluster.get = read_and_be_overtaken  # type: ignore[method-assign]
    assert not await two.attempt()
