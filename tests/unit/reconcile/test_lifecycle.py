"""Limits, asking again, retries and cleaning up."""

import json
from typing import Any

from finetune_contract.failure import FailureReason
from finetune_operator.reconcile.observed import Reference
from finetune_operator.settings import Settings
from tests import factories
from tests.unit.reconcile.runs import KEY, OTHER, disrupt, fail, run, running, staged, succeed, trainings, world
from tests.unit.reconcile.world import World

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
