"""Pausing, and going on."""

from tests import factories
from tests.unit.reconcile.runs import KEY, running, succeed, trainings, world
from tests.unit.reconcile.world import World


def test_suspend_stops_the_attempt_after_its_outcome_is_latched_and_keeps_the_run() -> None:
    here = running(step=40)
    here.later(90)
    here.edit(suspend=True)
    outcome = here.settle()
    assert here.jobs("train") == []
    assert here.status["phase"] == "Suspended"
    assert here.says("Suspended").startswith("True Suspended: spec.suspend is true")
    assert here.says("Ready").startswith("False Suspended: ")
    assert here.condition("Reconciling") is None
    assert here.condition("Stalled") is None
    (attempt,) = here.status["attempts"]
    assert attempt == {
        "number": 1, "run": KEY[:12], "reason": "Suspended", "message": "spec.suspend: stopped with a checkpoint",
        "node": "node-1", "finishedAt": factories.stamp(here.now), "seconds": 90, "gpuSeconds": 0, "step": 40,
        "checkpointStep": 40,
    }  # fmt: skip
    assert here.status["run"]["key"] == KEY
    assert outcome.wake_after is None


def test_what_was_suspended_goes_on_with_the_next_attempt_and_an_uncounted_stop() -> None:
    here = running(step=40)
    here.edit(suspend=True)
    here.settle()
    here.edit(suspend=False)
    here.settle()
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]
    assert here.status["retriesUsed"] == here.status["stalledDisruptions"] == 0
    assert here.condition("Suspended") is None
    succeed(here)
    assert here.status["phase"] == "Succeeded"


def test_the_next_attempt_waits_until_the_one_before_it_was_told_to_stop() -> None:
    """The operator may have died between writing that it was stopped and stopping it."""
    here = running(step=40)
    jobs = here.jobs("train")
    here.edit(suspend=True)
    here.settle()
    here.children["Job"] += jobs
    here.edit(suspend=False)
    here.deletions_happen = False
    here.act()
    assert here.jobs("train") == jobs
    assert here.says("Ready").startswith("False Stopping: attempt 2: waiting until triage-111111-1 was told to stop")
    here.children["Job"] = [job for job in here.jobs() if job not in jobs]
    here.settle()
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]


def test_a_job_that_is_suspended_from_the_start_asks_for_nothing() -> None:
    here = world(suspend=True)
    here.settle()
    assert here.created == []
    assert here.status["phase"] == "Suspended"
    here.edit(suspend=False)
    running(here)
    assert here.status["phase"] == "Loading"


def test_a_job_that_goes_on_and_waits_for_its_dataset_is_suspended_no_more() -> None:
    here = World(factories.make_job(suspend=True))
    here.settle()
    assert here.status["phase"] == "Suspended"
    here.edit(suspend=False)
    here.settle()
    assert here.condition("Suspended") is None
    assert here.status["phase"] == "WaitingForDataset"


def test_an_edit_while_suspended_waits_with_it() -> None:
    here = running()
    here.edit(suspend=True, adapter={"rank": 8})
    here.settle()
    assert here.jobs("train") == []
    assert len(here.jobs("stage")) == 1
    assert here.status["phase"] == "Suspended"


def test_a_suspended_success_stays_a_success() -> None:
    here = running()
    succeed(here)
    here.edit(suspend=True)
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.condition("Suspended") is None


def test_a_stop_that_was_written_down_but_not_carried_out_is_carried_out() -> None:
    here = running()
    here.edit(suspend=True)
    outcome = here.decide()
    here.raw["status"] = outcome.status  # and the operator dies
    here.settle()
    assert here.jobs("train") == []
    assert [attempt["number"] for attempt in here.status["attempts"]] == [1]


def test_the_next_attempt_waits_until_the_pod_of_the_last_has_saved() -> None:
    here = running()
    pod = here.children["Pod"][-1]
    here.edit(suspend=True)
    here.settle()
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    here.children["Pod"] = [pod]  # in its grace period: the Job is gone, the pod is not
    here.edit(suspend=False)
    here.settle()
    assert here.jobs("train") == []
    assert "to save its checkpoint" in here.says("Ready")
    pod["status"]["phase"] = "Failed"
    here.settle()
    assert len(here.jobs("train")) == 1


def test_a_pod_that_never_goes_does_not_hold_the_next_attempt_for_ever() -> None:
    here = running()
    pod = here.children["Pod"][-1]
    here.edit(suspend=True)
    here.settle()
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    here.children["Pod"] = [pod]
    here.edit(suspend=False)
    here.settle()
    here.later(16)
    here.settle()
    assert len(here.jobs("train")) == 1
