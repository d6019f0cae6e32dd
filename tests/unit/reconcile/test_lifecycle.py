"""Pausing, limits, asking again, cleaning up, and attempts that nobody saw end."""

import json
from typing import Any

import pytest

from finetune_contract.evaluating import EvaluationResult, Metric, Score
from finetune_contract.failure import Failure, FailureReason
from finetune_contract.results import Phase, Progress, ResolveResult
from finetune_operator.reconcile.observed import Reference
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import stage_result, training_result
from tests.unit.reconcile.test_finetunejob import KEY, OTHER, disrupt, fail, staged, succeed, trainings, world
from tests.unit.reconcile.world import World


def running(here: World | None = None, step: int = 0, **spec: Any) -> World:
    """A job whose first attempt runs."""
    here = staged(here=here or world(**spec))
    return run(here, step)


def run(here: World, step: int = 0) -> World:
    job = here.newest("train")
    here.pod(job)
    if step:
        here.progress = Progress(
            run_key=KEY,
            attempt=int(job["metadata"]["labels"]["finetune.dev/attempt"]),
            phase=Phase.TRAINING,
            step=step,
            total_steps=100,
            checkpoint_step=step,
            updated_at=here.now,
        )
    here.settle()
    return here


# --- spec.suspend


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


# --- spec.limits


def test_a_run_stops_with_a_checkpoint_at_its_limit_and_a_higher_one_goes_on_from_there() -> None:
    here = running(step=40, limits={"duration": "10m"})
    here.later(599)
    assert here.settle().wake_after == 1
    here.later(1)
    here.settle()
    assert here.jobs("train") == []
    assert here.says("Failed").startswith("True DeadlineExceeded: spec.limits.duration: ")
    assert here.status["attempts"][0]["reason"] == "DeadlineExceeded"
    assert here.status["attempts"][0]["checkpointStep"] == 40
    assert here.status["secondsTotal"] == 600
    here.edit(limits={"duration": "20m"})
    here.settle()
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]


def test_time_is_counted_over_all_attempts_and_waiting_is_not() -> None:
    here = running(limits={"duration": "10m"})
    here.later(400)
    here.edit(suspend=True)
    here.settle()
    here.later(100_000)
    here.edit(suspend=False)
    here.settle()
    here.later(100_000)
    here.settle()
    assert here.says("Running").startswith("False PodPending")
    run(here)
    assert here.settle().wake_after == 200
    here.later(200)
    here.settle()
    assert here.says("Failed").startswith("True DeadlineExceeded: ")


def test_gpu_hours_are_hours_times_gpus() -> None:
    here = running(limits={"gpuHours": 0.5}, resources={"limits": {"nvidia.com/gpu": 4}})
    here.later(449)
    here.settle()
    assert len(here.jobs("train")) == 1
    here.later(1)
    here.settle()
    assert here.says("Failed").startswith("True GpuHoursExceeded: spec.limits.gpuHours: the run has used 0.5 GPU-hours")
    assert here.status["gpuSecondsTotal"] == 1800


def test_a_run_whose_limit_is_used_up_starts_no_attempt() -> None:
    here = running(limits={"duration": "10m"})
    here.later(600)
    here.settle()
    here.edit(retries={"limit": 9})
    here.settle()
    assert trainings(here) == ["triage-111111-1"]
    assert here.says("Failed").startswith("True DeadlineExceeded: ")


def test_the_kubelet_holds_the_limit_while_no_operator_is_there() -> None:
    here = running(limits={"duration": "10m"})
    job = here.newest("train")
    status = {**factories.terminated(code=78), "reason": "DeadlineExceeded", "message": "Pod was active too long"}
    here.later(720)
    here.end(job, status={**status, "phase": "Failed"})
    here.settle()
    assert here.says("Failed").startswith("True DeadlineExceeded: spec.limits.duration: ")


# --- spec.rerun, spec.reuse


def test_a_new_token_reopens_a_failed_run_from_its_checkpoint() -> None:
    here = running()
    fail(here, FailureReason.INVALID_PLAN)
    assert here.status["phase"] == "Failed"
    here.edit(rerun="1")
    staged(here=here)
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]
    assert here.status["run"]["rerun"] == "1"


def test_removing_a_token_does_nothing() -> None:
    here = running(rerun="1")
    succeed(here)
    here.raw["spec"].pop("rerun")
    here.raw["metadata"]["generation"] += 1
    here.settle()
    assert len(here.jobs("stage")) == 1
    assert here.status["phase"] == "Succeeded"


def test_a_token_looks_the_inputs_up_again_and_trains_only_if_they_have_changed() -> None:
    here = running()
    succeed(here)
    here.edit(rerun="1")
    staged(here=here)
    assert trainings(here) == ["triage-111111-1"]
    assert here.status["phase"] == "Succeeded"
    here.others[Reference("Dataset", "tickets")] = factories.ready_dataset(letter="e")
    here.edit(rerun="2")
    staged(OTHER, here=here)
    assert trainings(here) == ["triage-111111-1", "triage-222222-1"]


def reuse_of(**spec: Any) -> str:
    """What the stage Job is asked to hash beside the Train fields."""
    here = world(**spec)
    here.settle()
    (plan,) = [manifest for manifest in here.made if manifest["kind"] == "ConfigMap"]
    return str(json.loads(plan["data"]["plan.json"])["run"]["trainFields"].get("reuse", ""))


def test_reuse_never_is_a_run_of_its_own_once_for_each_token() -> None:
    assert reuse_of() == ""
    assert reuse_of(reuse="Never") == "uid-finetunejob-triage/"
    assert reuse_of(reuse="Never", rerun="1") == "uid-finetunejob-triage/1"


# --- an edit in the middle


def test_a_run_that_makes_way_for_another_is_recorded_as_cancelled_and_can_come_back() -> None:
    here = running()
    here.edit(adapter={"rank": 8})
    staged(OTHER, here=here)
    assert here.status["runs"] == [{"key": KEY, "outcome": "Cancelled", "gpuSeconds": 0}]
    here.edit(adapter={})
    staged(KEY, here=here)
    assert [record["key"] for record in here.status["runs"]] == [OTHER]
    assert here.status["run"]["key"] == KEY


def test_what_a_cancelled_run_has_used_is_kept_with_its_record() -> None:
    gpus = {"limits": {"nvidia.com/gpu": 2}}
    here = running(resources=gpus)
    here.later(100)
    here.edit(suspend=True)
    here.settle()
    assert here.status["gpuSecondsTotal"] == 200
    here.edit(suspend=False)
    here.settle()
    run(here)
    here.later(50)
    here.edit(adapter={"rank": 8}, resources=gpus)
    staged(OTHER, here=here)
    assert here.status["runs"] == [{"key": KEY, "outcome": "Cancelled", "gpuSeconds": 300}]
    assert here.status["gpuSecondsTotal"] == 0


# --- an edit of spec.evaluation

SCORES = (Score(metric=Metric.EVAL_LOSS, system="Tuned", value=1.5, rows=7),)


def measured_anew(here: World) -> World:
    here.edit(evaluation={"metrics": ["EvalLoss"], "maxRows": 7})
    here.settle()
    return here


def test_an_edit_of_the_evaluation_measures_the_artifact_again_and_trains_nothing() -> None:
    here = running()
    succeed(here)
    artifact = here.status["artifact"]
    measured_anew(here)
    assert here.status["phase"] == "Evaluating"
    assert here.says("Evaluated").startswith("False Evaluating: ")
    assert here.says("Ready").startswith("False Evaluating: ")
    assert here.status["artifact"] == artifact
    here.end(here.newest("evaluate"), EvaluationResult(evaluation=SCORES).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["evaluation"] == [{"metric": "EvalLoss", "system": "Tuned", "value": 1.5, "rows": 7}]
    assert here.jobs("evaluate") == []
    assert trainings(here) == ["triage-111111-1"]


def test_another_run_after_a_success_stages_and_does_not_evaluate() -> None:
    here = running()
    succeed(here)
    here.edit(adapter={"rank": 8})
    here.settle()
    assert here.status["phase"] == "Staging"


def test_an_evaluation_edited_while_training_ran_is_measured_afterwards() -> None:
    here = running()
    before = json.loads(here.made[-2]["data"]["plan.json"])["evaluationKey"]
    here.edit(evaluation={"maxRows": 7})
    here.settle()
    assert here.jobs("evaluate") == []
    here.end(here.newest("train"), training_result(KEY, evaluation_key=before).to_json())
    here.settle()
    assert len(here.jobs("evaluate")) == 1


def test_an_evaluation_that_is_reverted_is_measured_no_more() -> None:
    here = running()
    succeed(here)
    scores = here.status["evaluation"]
    measured_anew(here)
    here.edit(evaluation={})
    here.settle()
    assert here.jobs("evaluate") == []
    assert here.status["phase"] == "Succeeded"
    assert here.status["evaluation"] == scores


def test_an_evaluation_that_cannot_be_measured_is_named_and_the_artifact_stays() -> None:
    here = running()
    succeed(here)
    measured_anew(here)
    failure = Failure(reason=FailureReason.DATASET_INVALID, message="no rows")
    here.end(here.newest("evaluate"), EvaluationResult(failure=failure).to_json(), code=66)
    here.settle()
    assert here.says("Ready").startswith("False DatasetInvalid: spec.evaluation: no rows. ")
    assert here.status["artifact"]["run"] == KEY
    here.settle()
    assert len(here.jobs("evaluate")) == 1


def test_what_a_judge_has_failed_is_measured_again_without_training() -> None:
    """The trainer names an evaluation that is not complete so that no spec asks for it."""
    here = running()
    here.end(here.newest("train"), training_result(KEY, evaluation_key="incomplete").to_json())
    here.settle()
    artifact = here.status["runs"][0]["artifact"]
    failure = Failure(reason=FailureReason.EVALUATION_FAILED, message="the judge is down; the artifact is kept")
    for number in (1, 2, 3):
        assert len(here.jobs("evaluate")) == number
        here.end(here.newest("evaluate"), EvaluationResult(failure=failure).to_json(), code=82)
        here.later(100)
        here.settle()
    assert here.says("Evaluated") == f"False EvaluationFailed: {failure.message}"
    assert here.status["artifact"] == artifact
    here.edit(evaluation={"maxRows": 7})
    here.settle()
    here.end(here.newest("evaluate"), EvaluationResult(evaluation=SCORES).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"] == artifact
    assert here.status["evaluation"] == [{"metric": "EvalLoss", "system": "Tuned", "value": 1.5, "rows": 7}]
    assert trainings(here) == ["triage-111111-1"]


def test_an_evaluation_waits_while_the_job_is_suspended() -> None:
    here = running()
    succeed(here)
    here.edit(evaluation={"maxRows": 7}, suspend=True)
    here.settle()
    assert here.jobs("evaluate") == []
    assert here.status["phase"] == "Suspended"
    here.edit(suspend=False)
    here.settle()
    assert len(here.jobs("evaluate")) == 1


# --- retries


def test_counted_failures_are_met_with_growing_pauses() -> None:
    here = World(
        factories.make_job(retries={"limit": 20}), factories.ready_dataset(), settings=Settings(retry_seconds=10)
    )
    staged(here=here)
    pauses = []
    for number in range(1, 9):
        fail(here, FailureReason.TRAINER_CRASHED)
        wait = here.settle().wake_after
        assert wait is not None
        assert here.says("Ready").startswith("False BackOff: attempt ")
        assert len(trainings(here)) == number
        pauses.append(wait)
        here.later(wait)
        here.settle()
        assert len(trainings(here)) == number + 1
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


def test_the_first_disruption_is_met_at_once() -> None:
    here = World(factories.make_job(), factories.ready_dataset(), settings=Settings(retry_seconds=1000))
    staged(here=here)
    disrupt(here)
    assert len(trainings(here)) == 2
    disrupt(here)
    assert len(trainings(here)) == 2
    assert here.says("Ready").startswith("False BackOff: ")


def micro_batch(here: World) -> Any:
    plans: list[Any] = []
    for manifest in here.made:
        if manifest["kind"] == "ConfigMap" and manifest["metadata"]["labels"]["finetune.dev/role"] == "train":
            document = json.loads(manifest["data"]["plan.json"])
            plans.append(document["hyperparameters"].get("microBatchSize"))
    return plans


def test_out_of_memory_halves_the_micro_batch_where_that_is_wanted() -> None:
    here = running(retries={"limit": 5, "onOutOfMemory": "ShrinkMicroBatch"})
    for size in (8, 4, 2, 1):
        fail(here, FailureReason.GPU_OUT_OF_MEMORY, micro_batch_size=size)
    assert micro_batch(here) == [None, 4, 2, 1]
    assert here.says("Failed").startswith("True GpuOutOfMemory: ")
    assert [attempt["microBatchSize"] for attempt in here.status["attempts"]] == [8, 4, 2, 1]


def test_out_of_memory_counts_as_a_retry() -> None:
    here = running(retries={"limit": 1, "onOutOfMemory": "ShrinkMicroBatch"})
    fail(here, FailureReason.GPU_OUT_OF_MEMORY, micro_batch_size=64)
    fail(here, FailureReason.GPU_OUT_OF_MEMORY, micro_batch_size=32)
    assert "spec.retries.limit: 1 used up" in here.says("Failed")


# --- spec.ttlAfterFinished


def test_finished_jobs_go_after_their_time_and_nothing_starts_again() -> None:
    here = running(ttlAfterFinished="1h")
    here.later(10)
    fail(here, FailureReason.TRAINER_CRASHED)
    succeed(here)
    before = here.status
    assert here.settle().wake_after == 3590  # the stage Job ended ten seconds before
    here.later(3600)
    here.settle()
    assert here.jobs() == here.children["ConfigMap"] == []
    assert here.status == before
    assert here.settle().wake_after is None


def test_a_job_that_runs_is_not_cleaned_up() -> None:
    here = running(ttlAfterFinished="1m")
    here.later(3600)
    here.settle()
    assert len(here.jobs("train")) == 1
    assert here.jobs("stage") == []


# --- attempts that nobody saw end


def lost(**spec: Any) -> World:
    here = running(**spec)
    here.children = {"ConfigMap": here.children["ConfigMap"]}
    here.settle()
    return here


def test_an_attempt_that_vanished_is_unknown_until_the_store_was_asked() -> None:
    here = lost()
    assert here.says("Running").startswith("Unknown AttemptLost: attempt 1 is gone")
    assert here.jobs() == []  # perhaps the Job is only not seen yet
    here.later(3)
    here.settle()
    assert [job["metadata"]["labels"]["finetune.dev/role"] for job in here.jobs()] == ["resolve"]
    assert trainings(here) == ["triage-111111-1"]


def test_a_vanished_attempt_that_has_succeeded_is_adopted_without_a_gpu() -> None:
    here = lost()
    here.later(3)
    here.settle()
    here.end(here.newest("resolve"), ResolveResult(outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["run"] == KEY
    assert [name for name in here.created if name.startswith("triage-111111")] == ["triage-111111-1"] * 2
    assert here.jobs("resolve") == []


@pytest.mark.parametrize("limit", [0, 2])
def test_a_vanished_attempt_that_left_nothing_was_deleted_and_does_not_count(limit: int) -> None:
    here = lost(retries={"limit": limit})
    here.later(3)
    here.settle()
    here.end(here.newest("resolve"), ResolveResult().to_json())
    here.settle()
    assert here.status["attempts"][0]["reason"] == "PodDeleted"
    assert here.status["retriesUsed"] == 0
    assert [job["metadata"]["name"] for job in here.jobs("train")] == ["triage-111111-2"]


def test_attempts_that_are_deleted_again_and_again_are_no_progress() -> None:
    here = running(retries={"limit": 0})
    for _ in range(5):
        here.children = {"ConfigMap": here.children["ConfigMap"]}
        here.settle()
        here.later(300)
        here.settle()
        here.end(here.newest("resolve"), ResolveResult().to_json())
        here.settle()
        here.later(300)
        here.settle()
    assert here.says("Failed").startswith("True NoProgress")
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["PodDeleted"] * 5


def ended_unseen(*, complete: bool, limit: int) -> World:
    """The Job has ended, and its pod was deleted before anybody looked."""
    here = running(retries={"limit": limit})
    job = here.newest("train")
    here.children["Pod"] = []
    factories.ended(job, complete=complete, now=here.now)
    here.settle()
    here.later(15)
    here.settle()
    assert here.says("Running").startswith("Unknown AttemptLost")
    here.later(3)
    here.settle()
    return here


@pytest.mark.parametrize("limit", [0, 2])
def test_a_success_whose_pod_is_gone_is_found_in_the_store_and_trains_no_more(limit: int) -> None:
    here = ended_unseen(complete=True, limit=limit)
    here.end(here.newest("resolve"), ResolveResult(outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert trainings(here) == ["triage-111111-1"]
    assert [attempt["reason"] for attempt in here.status["attempts"]] == ["Succeeded"]


@pytest.mark.parametrize("limit", [0, 2])
def test_a_failure_whose_pod_is_gone_is_unknown_and_counts(limit: int) -> None:
    here = ended_unseen(complete=False, limit=limit)
    here.end(here.newest("resolve"), ResolveResult().to_json())
    here.settle()
    assert here.status["attempts"][0]["reason"] == "Unknown"
    assert here.status["retriesUsed"] == 1
    assert len(trainings(here)) == (2 if limit else 1)


def test_a_job_that_was_only_not_seen_yet_is_followed() -> None:
    here = running()
    children = here.children
    here.children = {}
    here.settle()
    here.children = children
    here.later(3)
    here.settle()
    assert here.jobs("resolve") == []
    assert here.says("Running").startswith("True Training")


def test_a_store_that_cannot_be_asked_does_not_hold_the_run_for_ever() -> None:
    here = lost()
    for _ in range(3):
        here.later(61)
        here.settle()
        here.end(here.newest("resolve"), "", code=74)
        here.settle()
    assert here.status["attempts"][0]["reason"] == "PodDeleted"
    assert len(here.jobs("train")) == 1


@pytest.mark.parametrize("outcome", [None, training_result(KEY)])
def test_every_status_wiped_and_every_child_gone_converges(outcome: Any) -> None:
    here = running()
    if outcome:
        succeed(here)
    here.wipe()
    here.children = {}
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=outcome).to_json())
    here.settle()
    if outcome is None:
        succeed(here)
    assert here.status["phase"] == "Succeeded"
    assert len(trainings(here)) == (1 if outcome else 2)
