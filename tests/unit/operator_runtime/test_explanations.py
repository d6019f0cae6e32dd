"""When Events are read, how often, and that nothing depends on them."""

import asyncio
from datetime import timedelta

import pytest

from finetune_operator.errors import Denied
from finetune_operator.explanations import Explanations
from finetune_operator.reconcile.troubles import Doubt
from tests import factories
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeClock, FakeCluster

NOTE = "exceeded quota: pods"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def doubt(clock: FakeClock, *, age: float = 5, kind: str = "Job", uid: str = "u") -> Doubt:
    return Doubt(kind, uid, clock.now() - timedelta(seconds=age))


def cluster_that_says(note: str) -> FakeCluster:
    cluster = FakeCluster()
    cluster.said.append(factories.event({"kind": "Job", "metadata": {"name": "j", "uid": "u"}}, "FailedCreate", note))
    return cluster


def test_passes_share_what_was_read(clock: FakeClock) -> None:
    cluster = cluster_that_says(NOTE)
    explanations = Explanations(cluster, clock.now)

    async def look() -> list[str]:
        reports = await explanations.about(NAMESPACE, [doubt(clock), doubt(clock, uid="other")])
        return [found.reason for found in reports.by_uid.values()]

    assert asyncio.run(look()) == ["QuotaExceeded"]
    cluster.said.clear()
    clock.advance(1)
    assert asyncio.run(look()) == ["QuotaExceeded"]
    assert cluster.reads == [f"events {NAMESPACE} Job FailedCreate"]
    clock.advance(2)
    assert asyncio.run(look()) == []


def test_what_has_just_begun_is_not_asked_about(clock: FakeClock) -> None:
    cluster = cluster_that_says(NOTE)
    explanations = Explanations(cluster, clock.now)
    assert not asyncio.run(explanations.about(NAMESPACE, [doubt(clock, age=0.5)])).by_uid
    assert not asyncio.run(explanations.about(NAMESPACE, [])).by_uid
    assert cluster.reads == []


def test_events_that_may_not_be_read_stop_nothing(clock: FakeClock) -> None:
    cluster = cluster_that_says(NOTE)

    def refuse(what: str) -> None:
        raise Denied(f"{what} is forbidden")

    cluster.fail = refuse
    assert not asyncio.run(Explanations(cluster, clock.now).about(NAMESPACE, [doubt(clock)])).by_uid


@pytest.mark.parametrize(
    ("ages", "seconds"), [([], None), ([0], 2), ([7], 2), ([40], 10), ([40, 400], 10), ([4000], 30)], ids=str
)
def test_looks_become_rare(clock: FakeClock, ages: list[float], seconds: float | None) -> None:
    explanations = Explanations(FakeCluster(), clock.now)
    assert explanations.next_look([doubt(clock, age=age) for age in ages]) == seconds
