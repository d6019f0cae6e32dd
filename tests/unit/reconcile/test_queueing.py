"""A FineTuneJob in a Kueue queue: waiting, admitted, preempted, and what a preemption costs."""

import pytest

from finetune_operator.reconcile.admission import Admission
from tests import factories
from tests.factories import Object
from tests.unit.reconcile.queues import PENDING, QUEUE, admit, queued, succeed
from tests.unit.reconcile.runs import staged, world


def test_the_job_is_created_suspended_with_kueues_labels() -> None:
    job = queued(**QUEUE).newest("train")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"


def test_only_training_is_queued() -> None:
    here = world(scheduling=QUEUE)
    here.settle()
    stage = here.newest("stage")
    assert "suspend" not in stage["spec"]
    assert not [label for label in stage["metadata"]["labels"] if label.startswith("kueue")]


def test_without_a_queue_nothing_of_kueue_is_seen() -> None:
    here = staged()
    job = here.newest("train")
    assert "suspend" not in job["spec"]
    assert not [label for label in job["metadata"]["labels"] if label.startswith("kueue")]
    assert here.condition("Admitted") is None
    assert "queue" not in here.status


def test_a_waiting_job_has_its_place_and_kueues_words() -> None:
    here = queued()
    words = "3rd of 7 in queue team: insufficient unused quota for nvidia.com/gpu"
    assert here.says("Admitted") == f"False Pending: {words}"
    assert here.says("Ready") == f"False Queued: attempt 1: {words}"
    assert here.says("Running").startswith("False Queued")
    assert here.status["phase"] == "Queued"
    assert here.status["queue"] == {
        "name": "team", "attempt": 1, "position": 3, "waiting": 7, "preemptions": 0, "seconds": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("says", "reason", "words"),
    [
        pytest.param(None, "Queued", ["waiting in queue team"], id="nothing is known yet"),
        pytest.param(
            Admission(installed=False),
            "KueueNotInstalled",
            ["spec.scheduling.queueName", "install Kueue 0.15 or newer", "remove the field"],
            id="no Kueue",
        ),
        pytest.param(
            Admission(workload="w", reason="Inadmissible", message="LocalQueue team doesn't exist"),
            "Inadmissible",
            ["spec.scheduling.queueName: LocalQueue team doesn't exist; create it, or name another"],
            id="no such queue",
        ),
        pytest.param(
            Admission(workload="w", reason="Inadmissible", message="ClusterQueue all is inactive"),
            "Inadmissible",
            ["ClusterQueue all is inactive"],
            id="a queue that does not work",
        ),
        pytest.param(
            Admission(workload="w", active=False, evicted="Deactivated: The workload is deactivated"),
            "Deactivated",
            ["The workload is deactivated", "kubectl patch workload w --type=merge"],
            id="taken out of the queue",
        ),
        pytest.param(
            Admission(workload="w", reason="Finished", given_up="invalid admission check PodSetUpdate"),
            "GivenUp",
            ["invalid admission check PodSetUpdate", "kubectl delete job triage-111111-1"],
            id="Kueue has given it up",
        ),
        pytest.param(
            Admission(workload="w", reason="QuotaReserved", message="waiting for admission checks"),
            "QuotaReserved",
            ["waiting for admission checks"],
            id="admission checks",
        ),
    ],
)
def test_why_it_waits(says: Admission | None, reason: str, words: list[str]) -> None:
    here = queued(says)
    found = here.condition("Admitted") or {}
    assert (found["status"], found["reason"]) == ("False", reason)
    assert [part for part in words if part not in found["message"]] == []
    assert here.status["phase"] == "Queued"
    assert here.condition("Reconciling") is not None


def test_a_job_that_kueue_does_not_take_up_is_said_after_a_while() -> None:
    here = queued(Admission(), **QUEUE)
    assert here.says("Admitted") == "False Queued: waiting in queue team"
    assert here.settle().wake_after == 10
    here.later(10)
    here.settle()
    words = here.says("Admitted")
    assert words.startswith("False NoWorkload: Kueue has not taken up Job triage-111111-1")
    assert "WorkloadPriorityClass high (spec.scheduling.queuePriority)" in words


def test_once_admitted_it_runs_and_the_place_is_gone() -> None:
    here = queued()
    pod = admit(here)
    assert here.says("Admitted") == "True Admitted: by queue team"
    assert here.status["phase"] == "Loading"
    assert "position" not in here.status["queue"]
    succeed(here, pod)
    assert here.status["phase"] == "Succeeded"
    assert "queue" not in here.status
    assert "preemptions" not in here.status["attempts"][0]


def test_measuring_anew_waits_in_the_same_queue() -> None:
    here = queued()
    succeed(here, admit(here))
    here.edit(evaluation={"maxRows": 7})
    here.settle()
    job = here.newest("evaluate")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["spec"]["suspend"] is True
    here.admissions[job["metadata"]["uid"]] = PENDING
    here.settle()
    assert "3rd of 7 in queue team" in here.says("Evaluated")


def test_suspending_a_queued_job_takes_it_out_of_the_queue() -> None:
    here = queued()
    here.edit(suspend=True)
    here.settle()
    assert here.status["phase"] == "Suspended"
    assert here.jobs("train") == []
    assert here.condition("Admitted") is None
    assert "queue" not in here.status
    here.edit(suspend=False)
    here.settle()
    assert here.status["phase"] == "Queued"


def test_a_queued_job_that_somebody_deletes_is_no_longer_said_to_wait() -> None:
    here = queued()
    here.children["Job"].clear()
    here.settle()
    assert here.condition("Admitted") is None
    assert here.status["phase"] != "Queued"


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"scheduling": {"queueName": "other"}}, False),
        ({"scheduling": {"queueName": "team", "queuePriority": "high"}}, False),
        ({"scheduling": {}}, False),
        ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, False),
        ({"checkpoints": {"keep": 5}}, False),
        ({"retries": {"limit": 9}}, True),
    ],
    ids=["queue", "priority", "no queue", "resources", "plan", "what does not concern the Job"],
)
def test_an_edit_while_it_waits(change: Object, kept: bool) -> None:
    here = queued()
    before = here.newest("train")["metadata"]["uid"]
    here.edit(**change)
    here.settle()
    (job,) = here.jobs("train")
    assert (job["metadata"]["uid"] == before) is kept
    queue = change.get("scheduling", {"queueName": "team"}).get("queueName")
    assert job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == queue
    assert job["spec"].get("suspend", False) is (queue is not None)
    assert (here.condition("Admitted") is None) is (queue is None)


def test_an_edit_that_does_not_concern_the_job_is_no_reason_to_replace_it_when_it_is_admitted() -> None:
    here = queued()
    before = here.newest("train")["metadata"]["uid"]
    here.edit(retries={"limit": 9})
    here.settle()
    here.newest("train")["spec"]["suspend"] = False
    here.settle()
    assert here.newest("train")["metadata"]["uid"] == before
    assert here.status["phase"] == "Starting"


def test_a_replaced_job_goes_with_its_workload_before_the_next_comes() -> None:
    here = queued()
    here.deletions_happen = False
    here.edit(scheduling={"queueName": "other"})
    here.settle()
    (gone,) = [child for child in here.deleted if child.kind == "Job"]
    assert gone.foreground
    assert len(here.jobs("train")) == 1
    assert not any(child.foreground for child in here.deleted if child.kind == "ConfigMap")


def test_an_edit_of_the_queue_does_not_disturb_what_runs() -> None:
    here = queued()
    admit(here)
    here.edit(scheduling={"queueName": "other"})
    here.settle()
    assert here.deleted == []
    assert here.says("Admitted") == "True Admitted: by queue team"


def test_another_run_forgets_the_queue_of_the_last() -> None:
    here = queued()
    here.edit(hyperparameters={"epochs": 9})
    here.settle()
    assert here.status["phase"] == "Staging"
    here.end(here.newest("stage"), factories.stage_result("2" * 64).to_json())
    here.settle()
    assert here.newest("train")["metadata"]["name"] == "triage-222222-1"
    assert here.says("Admitted") == "False Queued: waiting in queue team"


def test_a_job_that_kueue_holds_back_unasked_says_so() -> None:
    """With `manageJobsWithoutQueueName`, Kueue's webhook suspends every Job of a namespace."""
    here = world()
    here.settle()
    here.newest("stage")["spec"]["suspend"] = True
    here.settle()
    assert "names no queue" in here.says("Staged")
    assert "LocalQueue called 'default'" in here.says("Staged")


def test_a_training_job_that_is_held_back_unasked_says_so_until_it_is_let_go() -> None:
    here = staged()
    here.newest("train")["spec"]["suspend"] = True
    here.settle()
    assert here.says("Admitted").startswith("False Suspended: Job triage-111111-1 is suspended and names no queue")
    assert here.status["phase"] == "Queued"
    assert "queue" not in here.status
    admit(here)
    assert here.condition("Admitted") is None
    assert here.status["phase"] == "Loading"


def test_a_stage_job_in_the_default_queue_tells_what_it_waits_for() -> None:
    here = world()
    here.settle()
    stage = here.newest("stage")
    stage["spec"]["suspend"] = True
    stage["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
    here.admissions[stage["metadata"]["uid"]] = PENDING
    here.settle()
    assert "3rd of 7 in queue default" in here.says("Staged")
