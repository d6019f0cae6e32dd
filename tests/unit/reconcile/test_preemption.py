"""A run that Kueue, or somebody, takes the pods of."""

from finetune_operator.reconcile.admission import Admission
from tests import factories
from tests.unit.reconcile.queues import admit, preempt, queued, succeed, tell
from tests.unit.reconcile.runs import trainings


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
