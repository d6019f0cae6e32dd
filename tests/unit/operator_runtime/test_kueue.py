"""Asking Kueue about waiting Jobs: what is kept, who is told, and how much is asked."""

import pytest

from finetune_operator.cache import Cache
from finetune_operator.cluster import JOB_UID
from finetune_operator.entries import Key
from finetune_operator.errors import Denied, Unavailable
from finetune_operator.kueue import AT_ONCE, QueuePoller
from finetune_operator.manifests.naming import LABEL_QUEUE, Manifest
from finetune_operator.reconcile.admission import Admission
from tests.unit.operator_runtime.fakes import NAMESPACE, FakeCluster, make_job, make_resource

TUNE = Key("FineTuneJob", NAMESPACE, "tune")


class Waiting:
    """Jobs that Kueue holds back, and the Workloads that it has made for them."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.cache = Cache()
        self.news: list[tuple[Key, float]] = []
        self.poller = QueuePoller(
            self.cluster, self.cache, lambda *news: self.news.append(news), period=3, per_second=5
        )

    def queue(self, name: str = "tune", queue: str = "team", *, taken_up: bool = True) -> Manifest:
        job = make_job(self.cluster.add(make_resource(name=name)), spec={"suspend": True})
        job["metadata"]["labels"][LABEL_QUEUE] = queue
        job = self.cluster.add(job)
        self.cache.put(job)
        if taken_up:
            self.cluster.kueue_workloads.append(
                {"metadata": {"name": f"job-{name}", "labels": {JOB_UID: job["metadata"]["uid"]}}, "spec": {}}
            )
        return job

    def admit(self, job: Manifest) -> None:
        self.cache.put(self.cluster.add({**job, "spec": {"suspend": False}}))

    async def poll(self) -> list[Key]:
        self.news.clear()
        self.cluster.reads.clear()
        await self.poller.poll()
        return [key for key, _ in self.news]


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


async def test_news_is_kept_and_told_once(waiting: Waiting) -> None:
    uid = waiting.queue()["metadata"]["uid"]
    waiting.cluster.pending["team"] = [
        {"metadata": {"name": name}, "positionInLocalQueue": at} for at, name in enumerate(("other", "job-tune"))
    ]
    assert await waiting.poll() == [TUNE]
    assert waiting.cache.admissions[uid] == Admission(workload="job-tune", position=2, waiting=2)
    assert await waiting.poll() == []
    del waiting.cluster.pending["team"][0]
    waiting.cluster.pending["team"][0]["positionInLocalQueue"] = 0
    assert await waiting.poll() == [TUNE]


async def test_nothing_is_asked_while_nothing_waits(waiting: Waiting) -> None:
    job = waiting.queue()
    await waiting.poll()
    waiting.admit(job)
    assert await waiting.poll() == []
    assert waiting.cluster.reads == []
    assert waiting.cache.admissions == {}


async def test_a_job_that_is_deleted_is_forgotten(waiting: Waiting) -> None:
    job = waiting.queue()
    await waiting.poll()
    waiting.cache.vanish(job["metadata"]["uid"])
    await waiting.poll()
    assert waiting.cache.admissions == {}


async def test_kueue_may_come_and_go(waiting: Waiting) -> None:
    uid = waiting.queue()["metadata"]["uid"]
    waiting.cluster.has_kueue = False
    assert await waiting.poll() == [TUNE]
    assert waiting.cache.admissions[uid] == Admission(installed=False)
    waiting.cluster.has_kueue = True
    assert await waiting.poll() == [TUNE]
    assert waiting.cache.admissions[uid].workload == "job-tune"
    waiting.cluster.has_kueue = False
    assert await waiting.poll() == [TUNE]


async def test_a_job_without_a_workload_is_known_as_such(waiting: Waiting) -> None:
    uid = waiting.queue(taken_up=False)["metadata"]["uid"]
    assert await waiting.poll() == [TUNE]
    assert waiting.cache.admissions[uid] == Admission()


@pytest.mark.parametrize("error", [Unavailable("away"), Denied("no right to list workloads")])
async def test_what_was_said_stays_while_kueue_cannot_be_asked(waiting: Waiting, error: Exception) -> None:
    waiting.queue()
    await waiting.poll()
    before = dict(waiting.cache.admissions)

    def fail(what: str) -> None:
        if what.startswith("workloads"):
            raise error

    waiting.cluster.fail = fail
    assert await waiting.poll() == []
    assert waiting.cache.admissions == before


async def test_without_the_visibility_api_there_is_no_place(waiting: Waiting) -> None:
    uid = waiting.queue()["metadata"]["uid"]

    def fail(what: str) -> None:
        if what.startswith("pending"):
            raise Unavailable("no endpoints")

    waiting.cluster.fail = fail
    assert await waiting.poll() == [TUNE]
    assert waiting.cache.admissions[uid] == Admission(workload="job-tune")


async def test_one_round_asks_little_and_all_have_their_turn(waiting: Waiting) -> None:
    uids = {waiting.queue(f"tune-{number}")["metadata"]["uid"] for number in range(2 * AT_ONCE + 1)}
    told = set(await waiting.poll())
    assert len(told) == AT_ONCE
    assert [delay for _, delay in waiting.news] == pytest.approx([turn / 5 for turn in range(AT_ONCE)])
    assert waiting.cluster.reads == [f"workloads {NAMESPACE}", f"pending {NAMESPACE}/team"]
    late = waiting.queue("late")["metadata"]["uid"]
    for _ in range(2):
        told |= set(await waiting.poll())
    assert waiting.cache.admissions.keys() == uids | {late}
    assert len(told) == 2 * AT_ONCE + 2
