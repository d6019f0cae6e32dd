"""The life of a FineTuneJob, step by step."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import ArtifactType, Phase, Progress, StageResult
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object, digest, stage_result, training_result
from tests.unit.reconcile.runs import KEY, OTHER, fail, staged, succeed, trainings, world
from tests.unit.reconcile.world import World

# --- the way to success


def test_first_the_base_is_staged() -> None:
    here = world()
    here.settle()
    assert [job["metadata"]["labels"]["finetune.dev/role"] for job in here.jobs()] == ["stage"]
    assert here.says("DatasetReady").startswith("True Ready: revision sha256:dd")
    assert here.status["phase"] == "Staging"
    assert "finetune-artifacts" in here.created


def test_then_the_run_has_a_key_and_its_first_attempt() -> None:
    here = staged()
    assert here.status["run"]["key"] == KEY
    assert here.status["run"]["number"] == 1
    assert here.status["run"]["inputs"]["dataset"] == digest("d")
    assert here.status["run"]["inputs"]["baseRevision"] == "c0ffee"
    assert [job["metadata"]["name"] for job in here.jobs("train")] == ["triage-111111-1"]


def test_success_is_an_artifact_and_ready() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.settle()
    assert here.status["phase"] == "Loading"
    succeed(here)
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["digest"] == digest("a")
    assert here.status["artifact"]["base"]["digest"] == digest("b")
    record = {
        "key": KEY,
        "outcome": "Succeeded",
        "artifactDigest": digest("a"),
        "artifact": here.status["artifact"],
        "gpuSeconds": 0,
    }
    assert here.status["runs"] == [record]
    assert here.says("Ready") == f"True Succeeded: Adapter {digest('a')}"
    assert here.says("Evaluated") == "True Measured: ExactMatch Tuned 0.5, ExactMatch ZeroShot 0.5"
    assert here.condition("Reconciling") is None
    assert [event.reason for event in here.events] == ["Succeeded"]


def test_a_pass_after_success_does_nothing() -> None:
    here = staged()
    succeed(here)
    here.later(3600)
    before = here.status
    outcome = here.act()
    assert (outcome.create, outcome.delete, outcome.events, outcome.wake_after) == ((), (), (), None)
    assert here.status == before


def test_transition_times_stay_while_the_status_of_a_condition_stays() -> None:
    here = staged()
    accepted = here.condition("Accepted")
    here.later(60)
    succeed(here)
    assert here.condition("Accepted") == accepted
    assert here.condition("Ready")["lastTransitionTime"] == factories.stamp(here.now)  # type: ignore[index]


# --- waiting


def test_a_missing_dataset_is_named_and_starts_the_job_when_it_appears() -> None:
    here = World(factories.make_job())
    here.settle()
    assert here.says("Ready") == (
        "False DatasetNotFound: spec.dataset.name: there is no Dataset 'tickets' in namespace team-a; "
        "create it, and this job starts"
    )
    assert here.status["phase"] == "WaitingForDataset"
    assert here.jobs() == []
    broken = {"conditions": [
        {"type": "Ready", "status": "False", "reason": "BadRow", "message": "line 2 is cut off. Mend that line."},
        {"type": "Stalled", "status": "True", "reason": "BadRow"},
    ]}  # fmt: skip
    here.others[Reference("Dataset", "tickets")] = {**factories.make_dataset(), "status": broken}
    here.settle()
    assert here.says("DatasetReady") == (
        "False DatasetNotReady: Dataset 'tickets' has no revision yet: BadRow: line 2 is cut off. Mend that line. "
        "It does not go on by itself: mend it, and what waits for it goes on"
    )
    here.others[Reference("Dataset", "tickets")] = factories.make_dataset()
    here.settle()
    assert "nobody has looked at it yet" in here.says("Ready")
    here.others[Reference("Dataset", "tickets")] = factories.ready_dataset()
    here.settle()
    assert len(here.jobs("stage")) == 1


def test_a_missing_source_claim_is_named_and_looked_for_again() -> None:
    here = world(baseModel={"persistentVolumeClaim": {"claimName": "files"}})
    assert here.settle().wake_after == 5
    assert "spec.baseModel.persistentVolumeClaim.claimName" in here.says("Ready")
    here.others[Reference("PersistentVolumeClaim", "files")] = {"metadata": {"name": "files"}}
    here.settle()
    assert len(here.jobs("stage")) == 1


@pytest.mark.parametrize(
    ("upstream", "reason", "condition"),
    [
        pytest.param(None, "BaseNotFound", "Reconciling", id="there is no such job"),
        pytest.param(factories.make_job("first"), "BaseNotReady", "Reconciling", id="not finished"),
        pytest.param(
            factories.finished_job("first", type_=ArtifactType.REWARD_MODEL),
            "BaseNotAModel",
            "Stalled",
            id="scores only",
        ),
    ],
)
def test_a_job_waits_for_the_job_before_it(upstream: Object | None, reason: str, condition: str) -> None:
    here = world(baseModel={"fineTuneJob": {"name": "first"}})
    if upstream:
        here.others[Reference("FineTuneJob", "first")] = upstream
    here.settle()
    assert here.says("Ready").startswith(f"False {reason}: ")
    assert here.condition(condition) is not None
    assert here.jobs() == []
    here.others[Reference("FineTuneJob", "first")] = factories.finished_job("first", type_=ArtifactType.MODEL)
    here.settle()
    assert len(here.jobs("stage")) == 1
    assert here.condition("Stalled") is None


def test_latched_inputs_stay_when_the_dataset_gets_a_new_revision_or_goes() -> None:
    here = staged()
    here.others[Reference("Dataset", "tickets")] = factories.ready_dataset(letter="e")
    here.settle()
    assert here.status["run"]["inputs"]["dataset"] == digest("d")
    del here.others[Reference("Dataset", "tickets")]
    succeed(here)
    assert here.status["phase"] == "Succeeded"
    assert len(here.created) == 5  # claim, and twice a plan and a Job


# --- staging that fails


def stage_fails(here: World, reason: FailureReason) -> None:
    failure = Failure(reason=reason, message="m" * 3000)
    here.end(here.newest("stage"), StageResult(failure=failure).to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()


def test_staging_that_may_pass_is_tried_three_times() -> None:
    here = world()
    here.settle()
    for wait in (10, 60, None):
        stage_fails(here, FailureReason.SOURCE_UNAVAILABLE)
        assert here.settle().wake_after == wait
        here.later(wait or 0)
        here.settle()
    assert len(here.jobs("stage")) == 3
    assert here.says("Stalled").startswith("True SourceUnavailable: ")
    assert [event.reason for event in here.events] == ["SourceUnavailable"]


def test_a_mended_secret_name_stages_again() -> None:
    here = world()
    here.settle()
    stage_fails(here, FailureReason.MODEL_ACCESS_DENIED)
    assert here.status["phase"] == "Failed"
    model = {"repo": "org/model", "tokenSecretRef": {"name": "hf", "key": "token"}}
    here.edit(baseModel={"huggingFace": model})
    here.settle()
    assert len(here.jobs("stage")) == 2
    assert here.condition("Stalled") is None
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    assert "stageFailure" not in here.status
    assert len(here.jobs("train")) == 1


def test_a_stage_pod_that_names_no_run_breaks_the_contract() -> None:
    here = staged(here=world(), key=None)  # type: ignore[arg-type]
    assert here.says("Stalled").startswith("True ContractViolation: ")


def test_a_reason_of_another_release_is_unknown() -> None:
    here = world()
    here.settle()
    stage_fails(here, FailureReason.INVALID_PLAN)
    here.raw["status"]["stageFailure"]["reason"] = "FromTheFuture"
    here.settle()
    here.later(10)
    here.settle()
    assert len(here.jobs("stage")) == 2


# --- the status is lost


def _nothing(here: World) -> None:
    """Nothing has happened yet."""


def _staged(here: World) -> None:
    here.settle()


def _ready(here: World) -> None:
    staged(here=here)


def _second(here: World) -> None:
    staged(here=here)
    fail(here, FailureReason.TRAINER_CRASHED)


def _done(here: World) -> None:
    staged(here=here)
    fail(here, FailureReason.TRAINER_CRASHED)
    succeed(here)


@pytest.mark.parametrize("until", [_nothing, _staged, _ready, _second, _done])
def test_a_lost_status_comes_back(until: Any) -> None:
    here, undisturbed = world(), world()
    _done(undisturbed)
    until(here)
    here.wipe()
    here.settle()
    if not here.jobs("train"):
        staged(here=here)
    if len(here.jobs("train")) == 1:
        fail(here, FailureReason.TRAINER_CRASHED)
    if here.status["phase"] != "Succeeded":
        succeed(here)
    assert here.status == undisturbed.status
    assert trainings(here) == ["triage-111111-1", "triage-111111-2"]


def test_a_status_lost_with_the_jobs_is_found_in_the_store() -> None:
    here = staged()
    succeed(here)
    here.wipe()
    here.children = {}
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert len(trainings(here)) == 1


def test_a_failed_attempt_does_not_undo_a_success_that_the_store_knows() -> None:
    here = staged(here=world(retries={"limit": 0}))
    fail(here, FailureReason.TRAINER_CRASHED)
    here.wipe()
    here.children["Job"] = [job for job in here.jobs() if job not in here.jobs("stage")]
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY, 2)).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert len(trainings(here)) == 1


# --- progress


def told(here: World, step: int, seconds: float, **more: Any) -> Object:
    at = factories.NOW + timedelta(seconds=seconds)
    document = {
        "run_key": KEY,
        "attempt": 1,
        "phase": Phase.TRAINING,
        "step": step,
        "total_steps": 100,
        "percent": step,
    }
    here.progress = Progress(**{**document, "updated_at": at, **more})
    here.settle()
    return dict(here.status.get("progress") or {})


def test_progress_is_written_now_and_then_and_a_new_phase_at_once() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.settle()
    assert told(here, 0, 0, phase=Phase.LOADING)["phase"] == "Loading"
    assert told(here, 1, 1)["step"] == 1
    assert told(here, 5, 9)["step"] == 1
    assert here.settle().wake_after == 7
    assert told(here, 9, 16.5)["step"] == 9
    assert here.status["progressPercent"] == "9%"
    assert told(here, 50, 17, phase=Phase.EVALUATING)["phase"] == "Evaluating"


def test_progress_of_another_attempt_or_run_is_not_shown() -> None:
    here = staged()
    here.pod(here.newest("train"))
    assert told(here, 5, 0, attempt=2) == {}
    assert told(here, 5, 0, run_key=OTHER) == {}


def test_a_trainer_whose_clock_is_ahead_is_followed_all_the_same() -> None:
    here = staged()
    here.pod(here.newest("train"))
    assert told(here, 1, 3600)["step"] == 1
    assert told(here, 2, 3616)["step"] == 2


# --- odd objects


def test_a_resource_that_is_being_deleted_is_left_alone() -> None:
    here = World(factories.make_job(metadata={"deletionTimestamp": factories.stamp(factories.NOW)}))
    outcome = here.decide()
    assert (outcome.status, outcome.create, outcome.delete) == (None, (), ())


def test_an_invalid_spec_is_said_once_and_keeps_what_is_known() -> None:
    here = staged()
    here.raw["spec"]["method"] = "Magic"
    here.settle()
    assert here.says("Accepted").startswith("False InvalidSpec: spec.method: ")
    assert here.status["run"]["key"] == KEY
    writes = here.writes
    here.later(60)
    here.settle()
    assert here.writes == writes
