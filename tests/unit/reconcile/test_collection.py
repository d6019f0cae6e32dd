"""When a store is collected, and what is said of it."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.collection import CollectionPlan, CollectionResult
from finetune_operator.manifests import collection as manifests
from finetune_operator.manifests import storage
from finetune_operator.reconcile.collection import decide, event_of, number_at, result_of
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import NOW, Object

DAY = 86400.0
SETTINGS = Settings(retention_minimum_age_seconds=7 * DAY)
CLAIM: Object = storage.claim("team-a", SETTINGS)
CLAIM["metadata"] |= {"uid": "uid-claim"}
NUMBER = number_at(CLAIM, NOW, DAY)


def collection(number: int, *, ended: bool | None = True) -> tuple[Object, Object]:
    """The plan and the Job of one collection, as children."""
    plan, job = (
        factories.as_child(item) for item in manifests.build(CLAIM, number, ["0" * 12], NOW, 7 * DAY, SETTINGS)
    )
    if ended is not None:
        factories.ended(job, complete=ended)
    return plan, job


def decided(*made: tuple[Object, Object], later: float = 0.0) -> Any:
    plans, jobs = [plan for plan, _ in made], [job for _, job in made]
    return decide(CLAIM, jobs, plans, NOW + timedelta(seconds=later), DAY)


def test_the_first_begins_at_once() -> None:
    assert decided().start == NUMBER


def test_one_in_each_interval() -> None:
    assert decided(collection(NUMBER)).start is None
    assert decided(collection(NUMBER), later=DAY).start == NUMBER + 1
    assert decided(collection(NUMBER, ended=False), later=DAY).start == NUMBER + 1


def test_never_two_at_a_time() -> None:
    assert decided(collection(NUMBER, ended=None), later=3 * DAY).start is None


def test_the_newest_stays_and_older_ones_go() -> None:
    made = [collection(number) for number in (NUMBER - 2, NUMBER - 1, NUMBER)]
    names = {(item.kind, item.name) for item in decided(*made).delete}
    wanted = {manifests.job_name("finetune-artifacts", number) for number in (NUMBER - 2, NUMBER - 1)}
    assert names == {(kind, name) for kind in ("Job", "ConfigMap") for name in wanted}
    made[0][1]["metadata"]["deletionTimestamp"] = made[0][0]["metadata"]["deletionTimestamp"] = "now"
    assert {item.name for item in decided(*made).delete} == {manifests.job_name("finetune-artifacts", NUMBER - 1)}


def test_a_running_one_and_its_plan_stay() -> None:
    assert decided(collection(NUMBER - 1, ended=None), later=DAY).delete == ()


def test_a_plan_whose_job_is_not_there_yet_stays() -> None:
    plan, _ = collection(NUMBER)
    assert decide(CLAIM, [], [plan], NOW, DAY).delete == ()


def test_claims_take_their_turns() -> None:
    starts = set()
    for name in "abcdefgh":
        claim = {**CLAIM, "metadata": {**CLAIM["metadata"], "uid": name}}
        number = number_at(claim, NOW, DAY)
        starts.add(next(hour for hour in range(25) if number_at(claim, NOW + timedelta(hours=hour), DAY) > number))
    assert len(starts) > 3


def test_the_job_belongs_to_the_claim_and_ends_in_time() -> None:
    plan, job = manifests.build(CLAIM, NUMBER, {"f" * 12, "0" * 12}, NOW, 7 * DAY, SETTINGS)
    for item in (plan, job):
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["apiVersion"], owner["kind"], owner["uid"]) == ("v1", "PersistentVolumeClaim", "uid-claim")
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    document = CollectionPlan.model_validate_json(plan["data"]["plan.json"])
    assert (document.live, document.as_of, document.namespace) == (("0" * 12, "f" * 12), NOW, "team-a")


@pytest.mark.parametrize(
    ("pod", "event"),
    [
        (CollectionResult(in_use=3, waiting=1).to_json(), None),
        (CollectionResult(in_use=3, removed=2, bytes=3 * 2**30).to_json(), ("Normal", "Collected", "3.0 GiB")),
        (CollectionResult(checkpoints_removed=1).to_json(), ("Normal", "Collected", "checkpoints of 1 runs")),
        ('{"failure":{"reason":"StorageFull","message":"full"}}', ("Warning", "CollectionFailed", "full")),
        ("Traceback", ("Warning", "CollectionFailed", "no valid result")),
    ],
)
def test_what_was_deleted_is_an_event(pod: str, event: tuple[str, str, str] | None) -> None:
    _, job = collection(NUMBER)
    result = result_of(job, [factories.make_pod(job, **factories.terminated(pod))], NOW)
    assert result is not None
    found = event_of(job, result)
    if event is None:
        assert found is None
    else:
        assert found is not None
        assert (found.type, found.reason) == event[:2]
        assert event[2] in found.message


def test_a_pod_that_died_is_a_failure() -> None:
    _, job = collection(NUMBER, ended=False)
    result = result_of(job, [factories.make_pod(job, **factories.evicted())], NOW)
    assert result is not None
    assert result.failure is not None
    assert "low on memory" in result.failure.message


def test_one_that_runs_has_no_result() -> None:
    _, job = collection(NUMBER, ended=None)
    assert result_of(job, [factories.make_pod(job)], NOW) is None
