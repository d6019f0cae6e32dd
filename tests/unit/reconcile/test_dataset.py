"""The life of a Dataset, step by step."""

from typing import Any

import pytest

from finetune_contract.datasets import DatasetResult, Dropped, DropReason, Split
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.api.dataset import Dataset
from finetune_operator.reconcile.dataset import preparation_key
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import dataset_result, digest
from tests.unit.reconcile.world import World


def world(**spec: Any) -> World:
    here = World(factories.make_dataset(**spec))
    here.settle()
    return here


def prepare(here: World, letter: str = "d", **more: Any) -> World:
    here.end(here.newest("prepare"), dataset_result(letter, **more).to_json())
    here.settle()
    return here


def fail(here: World, reason: FailureReason, message: str = "line 7 is not JSON") -> None:
    result = DatasetResult(failure=Failure(reason=reason, message=message))
    here.end(here.newest("prepare"), result.to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()


def test_first_the_claim_a_plan_and_a_job() -> None:
    here = world()
    assert here.created[0] == "finetune-artifacts"
    assert here.created[1] == here.created[2]
    assert here.says("Ready") == "False Preparing: PodPending: waiting for the Job controller to create the pod"
    assert here.status["phase"] == "Preparing"


def test_then_a_revision_and_ready() -> None:
    here = prepare(world())
    assert here.status["revision"]["digest"] == digest("d")
    assert here.status["revision"]["rows"] == {"read": 10, "kept": 9}
    assert here.status["revision"]["dropped"] == [{"reason": "ExactDuplicate", "rows": 1}]
    assert here.says("Ready") == "True RevisionReady: 9 of 10 rows: 8 train, 1 test"
    assert here.status["phase"] == "Ready"
    assert [event.reason for event in here.events] == ["RevisionReady"]


def test_a_pass_after_success_does_nothing() -> None:
    here = prepare(world())
    here.later(3600)
    before = here.status
    outcome = here.act()
    assert (outcome.create, outcome.delete, outcome.events, outcome.wake_after) == ((), (), (), None)
    assert here.status == before


def test_a_lost_status_comes_back_without_another_job() -> None:
    here = prepare(world())
    before = here.status
    here.wipe()
    here.settle()
    assert here.status == before
    assert len(here.jobs()) == 1


@pytest.mark.parametrize(
    ("edit", "reads"),
    [
        pytest.param({"rerun": "again"}, True, id="rerun"),
        pytest.param({"split": {"test": 0.2}}, True, id="split"),
        pytest.param({"columns": {"prompt": "question"}}, True, id="columns"),
        pytest.param({"prepare": {"maxBadRows": 3}}, True, id="prepare"),
        pytest.param({"source": {"inline": {"jsonl": '{"text": "b"}'}}}, True, id="source"),
        pytest.param({"format": "Auto"}, False, id="a default written out"),
        pytest.param({"split": {"seed": 0}}, False, id="a nested default written out"),
        pytest.param({"resources": {"requests": {"cpu": "1"}}}, False, id="resources"),
        pytest.param({"scheduling": {"nodeSelector": {"a": "b"}}}, False, id="scheduling"),
    ],
)
def test_an_edit_of_what_decides_the_rows_reads_again(edit: dict[str, Any], reads: bool) -> None:
    here = prepare(world())
    here.edit(**edit)
    here.settle()
    assert (here.status["phase"] == "Preparing") is reads
    assert len(here.jobs()) == 1
    assert here.status["revision"]["digest"] == digest("d")


def test_the_same_rows_are_no_newer_revision() -> None:
    here = prepare(world())
    made = here.status["revision"]["createdAt"]
    here.later(3600)
    here.edit(rerun="2")
    here.settle()
    prepare(here)
    assert here.status["revision"]["createdAt"] == made
    here.edit(rerun="3")
    here.settle()
    prepare(here, "e")
    assert here.status["revision"]["createdAt"] != made


def test_a_bad_row_is_named_and_not_tried_again() -> None:
    here = world()
    fail(here, FailureReason.BAD_ROW)
    assert here.says("Stalled").startswith("True BadRow: line 7 is not JSON. Mend the line")
    assert here.status["failure"]["reason"] == "BadRow"
    assert len(here.jobs()) == 1
    assert [event.reason for event in here.events] == ["BadRow"]


def test_a_failure_keeps_the_revision_before_it() -> None:
    here = prepare(world())
    here.edit(rerun="2")
    here.settle()
    fail(here, FailureReason.BAD_ROW)
    assert here.status["phase"] == "Failed"
    assert here.status["revision"]["digest"] == digest("d")


def test_what_may_pass_is_tried_three_times_with_pauses() -> None:
    here = world()
    for wait in (10, 60):
        fail(here, FailureReason.SOURCE_UNAVAILABLE)
        assert here.settle().wake_after == wait
        here.later(wait)
        here.settle()
    fail(here, FailureReason.SOURCE_UNAVAILABLE)
    assert here.status["phase"] == "Failed"
    assert len(here.jobs()) == 3


def test_disruptions_are_met_with_patience() -> None:
    here = world()
    for _ in range(7):
        here.end(here.newest("prepare"), status=factories.evicted())
        here.settle()
        here.later(60)
        here.settle()
    prepare(here)
    assert here.status["phase"] == "Ready"
    assert "failure" not in here.status


def test_more_memory_after_out_of_memory_is_tried() -> None:
    here = world()
    here.end(here.newest("prepare"), status=factories.oom_killed())
    here.settle()
    assert here.says("Stalled").startswith("True HostOutOfMemory: ")
    here.edit(resources={"limits": {"memory": "1Gi"}})
    here.settle()
    assert len(here.jobs()) == 2
    assert here.condition("Stalled") is None


def test_a_pod_that_does_not_fit_is_replaced_after_an_edit() -> None:
    here = world(resources={"requests": {"cpu": "1000"}})
    before = here.newest("prepare")["metadata"]["uid"]
    here.pod(here.newest("prepare"), **factories.unschedulable())
    here.settle()
    assert "Unschedulable" in here.says("Ready")
    here.edit(resources={"requests": {"cpu": "1"}})
    here.deletions_happen = False
    here.settle()
    assert here.newest("prepare")["metadata"]["uid"] == before
    here.children = {}
    here.settle()
    assert here.newest("prepare")["metadata"]["uid"] != before


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ({"configMap": {"name": "rows", "key": "a.jsonl"}}, Reference("ConfigMap", "rows")),
        ({"configMap": {"name": "finetune-artifacts", "key": "a"}}, Reference("ConfigMap", "finetune-artifacts")),
        ({"persistentVolumeClaim": {"claimName": "raw"}}, Reference("PersistentVolumeClaim", "raw")),
    ],
    ids=["config map", "config map named as the claim", "claim"],
)
def test_a_missing_source_is_named_and_looked_for(source: dict[str, Any], reference: Reference) -> None:
    here = world(source=source)
    assert here.settle().wake_after == 5
    assert here.says("Ready").startswith(f"False SourceNotFound: spec.source.{next(iter(source))}.")
    assert here.jobs() == []
    here.others[reference] = {"metadata": {"name": reference.name}}
    here.settle()
    assert len(here.jobs()) == 1


def test_lists_that_do_not_fit_the_status_are_cut() -> None:
    dropped = tuple(Dropped(reason=DropReason.EMPTY, rows=1) for _ in range(30))
    here = prepare(world(), dropped=dropped, splits=tuple(Split(name=f"s{n}", rows=n) for n in range(9)))
    assert len(here.status["revision"]["dropped"]) == 16
    assert len(here.status["revision"]["splits"]) == 4


def test_another_reading_removes_the_jobs_of_the_last() -> None:
    here = prepare(world())
    old = here.newest("prepare")["metadata"]["name"]
    here.edit(rerun="2")
    here.settle()
    assert here.find("Job", old) is None
    assert here.find("ConfigMap", old) is None


def test_a_deleted_job_that_had_failed_is_judged_anew() -> None:
    here = world()
    fail(here, FailureReason.BAD_ROW)
    here.children = {}
    here.settle()
    assert len(here.jobs()) == 1
    here.raw["status"]["failure"] = {"job": here.newest("prepare")["metadata"]["name"], "reason": "BadRow"}
    here.settle()
    prepare(here)
    assert here.status["phase"] == "Ready"


def test_the_key_of_a_reading_is_frozen() -> None:
    """Another key makes every Dataset of that shape read its source again at the next upgrade."""
    dataset = Dataset.model_validate(factories.make_dataset(split={"test": 0.1}, rerun="1"))
    assert preparation_key(dataset) == "772b7e683e1ba2e9d645af278e41d84f"
