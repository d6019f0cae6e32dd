"""Edits: another run or the same one, and what becomes of the artifact meanwhile."""

from finetune_contract.failure import FailureReason
from tests import factories
from tests.factories import digest, stage_result, training_result
from tests.unit.reconcile.runs import KEY, OTHER, fail, staged, succeed, trainings, world
from tests.unit.reconcile.world import World


def edited(here: World) -> World:
    """A Train field was edited, and the other run is staged."""
    here.edit(adapter={"rank": 8})
    here.settle()
    here.end(here.newest("stage"), stage_result(OTHER).to_json())
    return here


def test_an_edit_of_a_train_field_starts_another_run_and_stops_the_old_one_after_the_status() -> None:
    here = staged()
    old = here.newest("train")
    here.edit(adapter={"rank": 8})
    here.settle()
    assert here.find("Job", old["metadata"]["name"]) is not None
    here.end(here.newest("stage"), stage_result(OTHER).to_json())
    outcome = here.act()
    assert old["metadata"]["name"] in [child.name for child in outcome.delete]
    assert outcome.status is not None
    assert outcome.status["run"]["key"] == OTHER
    here.settle()
    assert [job["metadata"]["name"] for job in here.jobs("train")] == ["triage-222222-1"]
    assert here.status["run"]["number"] == 2


def test_the_artifact_stays_while_another_run_goes_on() -> None:
    here = staged()
    succeed(here)
    edited(here).settle()
    assert here.status["artifact"]["digest"] == digest("a")
    assert here.condition("Complete") is None
    assert here.says("Ready").startswith("False ")
    succeed(here, OTHER, "c")
    assert here.status["artifact"]["digest"] == digest("c")
    assert [record["key"] for record in here.status["runs"]] == [KEY, OTHER]


def test_what_an_interrupted_deletion_left_of_an_earlier_resolution_goes_later() -> None:
    here = staged()
    left = [item for item in here.children["ConfigMap"] if "stage" in item["metadata"]["name"]]
    succeed(here)
    here.later(60)
    here.edit(adapter={"rank": 8})
    staged(OTHER, here)
    here.children["ConfigMap"] += left
    here.settle()
    assert left[0] not in here.children["ConfigMap"]
    assert [job["metadata"]["name"] for job in here.jobs("stage")] == [here.newest("stage")["metadata"]["name"]]


def test_a_reverted_edit_reuses_the_earlier_artifact() -> None:
    here = staged()
    succeed(here)
    edited(here).settle()
    succeed(here, OTHER, "c")
    trained = len(trainings(here))
    here.edit(adapter={"rank": 16})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["digest"] == digest("a")
    assert len(trainings(here)) == trained
    assert here.events[-1].reason == "Reused"


def test_a_reverted_edit_trains_again_where_the_artifact_is_lost() -> None:
    here = staged()
    succeed(here)
    edited(here).settle()
    succeed(here, OTHER, "c")
    here.edit(adapter={"rank": 16})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    assert here.status["phase"] != "Succeeded"
    assert [job["metadata"]["name"] for job in here.jobs("train")] == ["triage-111111-1"]


def test_a_reverted_edit_reopens_a_failed_run() -> None:
    here = staged()
    fail(here, FailureReason.HOST_OUT_OF_MEMORY)
    edited(here).settle()
    here.edit(adapter={"rank": 16})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    assert here.jobs("train") != []
    assert here.condition("Stalled") is None


def test_another_address_of_the_same_base_reopens_a_failed_run() -> None:
    here = staged()
    fail(here, FailureReason.INVALID_PLAN)
    here.edit(baseModel={"huggingFace": {"repo": "org/model", "revision": "v1"}})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]


def test_another_address_of_the_same_base_keeps_a_success() -> None:
    here = staged()
    succeed(here)
    here.edit(baseModel={"huggingFace": {"repo": "org/model", "revision": "v1"}})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert len(trainings(here)) == 1


def test_an_operational_edit_reopens_a_failed_run_with_a_fresh_budget() -> None:
    here = staged(here=world(retries={"limit": 0}))
    fail(here, FailureReason.TRAINER_CRASHED)
    assert here.status["phase"] == "Failed"
    here.edit(resources={"limits": {"memory": "64Gi"}})
    here.settle()
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]
    assert here.status["retriesUsed"] == 0
    assert here.condition("Failed") is None
    succeed(here)
    assert here.status["phase"] == "Succeeded"


def test_an_edit_made_while_the_attempt_ran_is_tried() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.settle()
    here.edit(resources={"limits": {"memory": "64Gi"}})
    here.settle()
    here.end(here.newest("train"), status=factories.oom_killed())
    here.settle()
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]


def test_an_edit_after_success_that_decides_nothing_does_nothing() -> None:
    here = staged()
    succeed(here)
    here.edit(retries={"limit": 5}, resources={"requests": {"cpu": "2"}})
    here.settle()
    assert len(trainings(here)) == 1
    assert here.status["observedGeneration"] == 2
    assert here.condition("Ready")["observedGeneration"] == 2  # type: ignore[index]
