"""A FineTuneJob in a Kueue queue: waiting, admitted, preempted, and what a preemption costs."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.failure import FailureReason
from finetune_operator.reconcile.admission import Admission, ordinal
from tests import factories
from tests.factories import Object, training_result
from tests.unit.reconcile.test_finetunejob import KEY, staged, trainings, world
from tests.unit.reconcile.world import World

QUEUE = {"queueName": "team", "queuePriority": "high"}
PENDING = Admission(
    workload="job-triage-1",
    reason="Pending",
    message="insufficient unused quota for nvidia.com/gpu",
    position=3,
    waiting=7,
)


def queued(says: Admission | None = PENDING, **scheduling: str) -> World:
    """A job whose first attempt waits in queue `team`."""
    here = staged(here=world(scheduling=scheduling or {"queueName": "team"}))
    if says:
        tell(here, says)
    return here


def tell(here: World, says: Admission) -> None:
    here.admissions[here.newest("train")["metadata"]["uid"]] = says
    here.settle()


def admit(here: World) -> Object:
    """Kueue lets the Job go on, and it has a new pod."""
    job = here.newest("train")
    job["spec"]["suspend"] = False
    here.admissions.clear()
    pod = here.pod(job)
    here.settle()
    return pod


def preempt(here: World, pod: Object, *, checkpoint: int | None, seconds: int = 40) -> None:
    """Kueue suspends the Job; its pod saves a checkpoint and is deleted."""
    here.newest("train")["spec"]["suspend"] = True
    here.settle()
    here.later(5)
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    result = factories.failed_training(
        KEY, 1, FailureReason.PREEMPTED, step=checkpoint or 0, checkpoint_step=checkpoint
    )
    pod["status"] = factories.terminated(result.to_json(), code=78, now=here.now)
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    state["startedAt"] = factories.stamp(here.now - timedelta(seconds=seconds))
    here.settle()
    here.later(60)
    here.settle()


def succeed(here: World, pod: Object, **more: Any) -> None:
    """The newest pod runs to its end."""
    pod["status"] = factories.terminated(training_result(KEY, **more).to_json(), now=here.now)
    factories.ended(here.newest("train"), complete=True, now=here.now)
    here.settle()


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


def test_a_preempted_attempt_is_kept_and_resumes() -> None:
    here = queued()
    job = here.newest("train")
    preempt(here, admit(here), checkpoint=12)
    evicted = "Preempted: Preempted to accommodate a workload"
    tell(here, Admission(workload="w", reason="Pending", message="no quota", evicted=evicted, position=1, waiting=1))
    assert here.status["phase"] == "Queued"
    assert here.says("Admitted") == (
        f"False Pending: 1st of 1 in queue team: no quota; preempted by Kueue, resumes from its checkpoint ({evicted})"
    )
    assert [event.reason for event in here.events] == ["Preempted"]
    assert "resumes from step 12" in here.events[0].message
    assert here.status["queue"]["preemptions"] == 1
    pod = admit(here)
    here.later(30)
    succeed(here, pod, resumed_from_step=12)
    (attempt,) = here.status["attempts"]
    assert (attempt["number"], attempt["reason"], attempt["preemptions"]) == (1, "Succeeded", 1)
    assert attempt["seconds"] == 40 + 40, "of both pods"
    assert here.status["retriesUsed"] == here.status["stalledDisruptions"] == 0
    assert here.jobs("train") == [job]
    assert trainings(here) == [job["metadata"]["name"]]


def test_each_preemption_counts_once_though_its_pod_stays_known_or_is_forgotten() -> None:
    here = queued()
    for number in range(1, 11):
        preempt(here, admit(here), checkpoint=10 * number)
        assert here.status["queue"]["preemptions"] == number
        if number % 3 == 0:
            here.children["Pod"].clear()  # the operator was started anew
            here.settle()
    assert here.status["queue"]["seconds"] == 400
    assert here.status["queue"]["checkpointStep"] == 100
    assert here.status["stalledDisruptions"] == 0
    assert here.condition("Failed") is None
    succeed(here, admit(here))
    assert here.status["attempts"][0]["preemptions"] == 10


def test_limits_count_the_pods_that_were_stopped_even_when_the_operator_was_started_anew() -> None:
    here = queued()
    here.raw["spec"]["limits"] = {"duration": "100s"}
    preempt(here, admit(here), checkpoint=10, seconds=60)
    here.children["Pod"].clear()
    here.settle()
    admit(here)
    here.later(39)
    here.settle()
    assert here.condition("Failed") is None
    here.later(1)
    here.settle()
    assert here.says("Failed").startswith("True DeadlineExceeded")
    (attempt,) = here.status["attempts"]
    assert (attempt["seconds"], attempt["preemptions"]) == (100, 1)
    assert here.condition("Admitted") is None


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


def test_preemptions_that_never_leave_a_checkpoint_end_as_no_progress() -> None:
    here = queued()
    for _ in range(4):
        preempt(here, admit(here), checkpoint=None)
    assert here.status["phase"] == "Queued"
    assert here.status["stalledDisruptions"] == 4
    assert "begins anew" in here.events[-1].message
    preempt(here, admit(here), checkpoint=None)
    assert here.says("Failed").startswith("True NoProgress: 5 disruptions in a row, the last: preempted by Kueue")
    assert here.jobs("train") == [], "it leaves the queue"
    assert here.condition("Admitted") is None
    assert here.status["phase"] == "Failed"
    (attempt,) = here.status["attempts"]
    assert (attempt["reason"], attempt["preemptions"], attempt["seconds"]) == ("NoProgress", 5, 200)
    here.edit(checkpoints={"intervalMinutes": 1})
    here.settle()
    assert here.status["stalledDisruptions"] == 0
    assert here.newest("train")["metadata"]["name"].endswith("-2")


def test_a_pod_that_never_ran_is_no_preemption() -> None:
    here = queued()
    pod = admit(here)
    pod["status"] = {"phase": "Pending"}
    here.newest("train")["spec"]["suspend"] = True
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    here.settle()
    assert here.status["phase"] == "Queued"
    assert here.status["queue"]["preemptions"] == here.status["stalledDisruptions"] == 0


def test_a_pod_that_somebody_deletes_ends_the_attempt_and_is_no_preemption() -> None:
    here = queued()
    pod = admit(here)
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    pod["status"] = factories.terminated("", code=143, now=here.now)
    here.settle()
    assert here.status["queue"]["preemptions"] == 0
    here.end(here.newest("train"), status=pod["status"])
    here.settle()
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["PodDeleted"]


def test_a_new_attempt_has_a_place_of_its_own() -> None:
    here = queued()
    preempt(here, admit(here), checkpoint=5)
    admit(here)
    here.end(here.newest("train"), status=factories.disrupted("DeletionByTaintManager"))
    here.later(60)
    here.settle()
    assert [job["spec"]["suspend"] for job in here.jobs("train")] == [False, True]
    assert (here.status["queue"]["attempt"], here.status["queue"]["preemptions"]) == (2, 0)
    assert here.status["phase"] == "Queued"


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


def workload(*conditions: tuple[str, str, str, str], **spec: Any) -> Object:
    named = [dict(zip(("type", "status", "reason", "message"), item, strict=True)) for item in conditions]
    return {"metadata": {"name": "w"}, "spec": spec, "status": {"conditions": named}}


def pending(*names: str) -> list[Object]:
    return [{"metadata": {"name": name}, "positionInLocalQueue": at} for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("said", "waiting", "expected"),
    [
        pytest.param(workload(), [], Admission(workload="w"), id="new"),
        pytest.param(
            workload(("QuotaReserved", "False", "Pending", "no quota")),
            pending("v", "w", "x"),
            Admission(workload="w", reason="Pending", message="no quota", position=2, waiting=3),
            id="waiting",
        ),
        pytest.param(
            workload(
                ("QuotaReserved", "True", "QuotaReserved", "got it"), ("Admitted", "False", "NoChecks", "not yet")
            ),
            [],
            Admission(workload="w", reason="QuotaReserved", message="not yet"),
            id="admission checks",
        ),
        pytest.param(
            workload(("QuotaReserved", "False", "Pending", "no quota"), ("Evicted", "True", "Preempted", "make room")),
            pending("w"),
            Admission(
                workload="w",
                reason="Pending",
                message="no quota",
                evicted="Preempted: make room",
                position=1,
                waiting=1,
            ),
            id="preempted",
        ),
        pytest.param(
            workload(("Evicted", "False", "QuotaReserved", "Previously: make room")),
            [],
            Admission(workload="w"),
            id="preempted before",
        ),
        pytest.param(
            workload(("QuotaReserved", "False", "Finished", "done"), ("Finished", "True", "FailedToStart", "conflict")),
            [],
            Admission(workload="w", reason="Finished", message="done", given_up="conflict"),
            id="given up",
        ),
        pytest.param(workload(active=False), [], Admission(workload="w", active=False), id="deactivated"),
        pytest.param(
            workload(),
            pending(*map(str, range(23)), "w", *map(str, range(30, 148))),
            Admission(workload="w", position=30, waiting=150),
            id="far behind: in steps of ten, so that not every admission moves everybody",
        ),
    ],
)
def test_what_a_workload_says(said: Object, waiting: list[Object], expected: Admission) -> None:
    assert Admission.of(said, waiting) == expected


def test_ordinals() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 30, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "30th", "111th",
    ]  # fmt: skip
