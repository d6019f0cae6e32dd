"""The life of a FineTuneJob, step by step."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import ArtifactType, Phase, Progress, ResolveResult, StageResult, Timing
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object, digest, stage_result, training_result
from tests.unit.reconcile.world import World

KEY, OTHER = "1" * 64, "2" * 64


def world(**spec: Any) -> World:
    return World(factories.make_job(**spec), factories.ready_dataset())


def staged(key: str = KEY, here: World | None = None, **result: Any) -> World:
    """A job whose base is staged and whose first attempt was created."""
    here = here or world()
    here.settle()
    here.end(here.newest("stage"), stage_result(key, **result).to_json())
    here.settle()
    return here


def fail(here: World, reason: FailureReason, **more: Any) -> None:
    job = here.newest("train")
    number = int(job["metadata"]["labels"]["finetune.dev/attempt"])
    result = factories.failed_training(KEY, number, reason, **more)
    here.end(job, result.to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()


def disrupt(here: World, checkpoint: int = 0) -> None:
    number = len(here.jobs("train"))
    here.progress = Progress(
        run_key=KEY,
        attempt=number,
        phase=Phase.TRAINING,
        step=checkpoint,
        checkpoint_step=checkpoint,
        updated_at=here.now,
    )
    here.pod(here.newest("train"))
    here.settle()
    here.progress = None
    here.end(here.newest("train"), status=factories.disrupted("DeletionByTaintManager"))
    here.later(60)
    here.settle()


def succeed(here: World, key: str = KEY, artifact: str = "a") -> None:
    job = here.newest("train")
    number = int(job["metadata"]["labels"]["finetune.dev/attempt"])
    here.end(job, training_result(key, number, artifact).to_json())
    here.settle()


def trainings(here: World) -> list[str]:
    """Training Jobs that were ever created."""
    return [name for name in here.created if name.startswith(("triage-111111", "triage-222222"))][::2]


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


# --- attempts


def test_a_deleted_pod_is_not_counted_and_tried_again() -> None:
    here = staged()
    pod = here.pod(here.newest("train"))
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    here.end(here.newest("train"), code=143)
    here.settle()
    assert here.status["attempts"][0]["reason"] == "PodDeleted"
    assert here.status["retriesUsed"] == 0
    assert trainings(here)[-1] == "triage-111111-2"


def test_a_counted_failure_is_tried_until_the_limit() -> None:
    here = staged(here=world(retries={"limit": 2}))
    for _ in range(3):
        fail(here, FailureReason.TRAINER_CRASHED)
    assert [attempt["number"] for attempt in here.status["attempts"]] == [1, 2, 3]
    assert here.status["phase"] == "Failed"
    assert "spec.retries.limit: 2 used up" in here.says("Failed")
    assert here.status["runs"] == [{"key": KEY, "outcome": "Failed", "gpuSeconds": 0}]
    assert len(trainings(here)) == 3


@pytest.mark.parametrize(
    "reason", [reason for reason in FailureReason if policy_of(reason).exit_code and not policy_of(reason).retried]
)
def test_what_cannot_pass_is_never_tried_again(reason: FailureReason) -> None:
    here = staged()
    fail(here, reason)
    assert len(trainings(here)) == 1
    assert here.says("Ready").startswith(f"False {reason.value}: ")
    assert policy_of(reason).remedy in here.says("Stalled")


def test_five_disruptions_without_a_newer_checkpoint_are_no_progress() -> None:
    here = staged()
    for _ in range(5):
        disrupt(here)
    assert here.says("Failed").startswith("True NoProgress: ")
    assert here.status["retriesUsed"] == 0
    assert len(trainings(here)) == 5


def test_disruptions_between_checkpoints_go_on() -> None:
    here = staged()
    for step in range(1, 9):
        disrupt(here, checkpoint=step * 10)
    assert here.status["stalledDisruptions"] == 0
    assert here.condition("Failed") is None
    assert [attempt["checkpointStep"] for attempt in here.status["attempts"]][-1] == 80
    for _ in range(5):
        disrupt(here, checkpoint=80)
    assert here.says("Failed").startswith("True NoProgress: ")
    assert len(here.status["attempts"]) == 10
    assert here.status["attemptsTotal"] == 13


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        pytest.param("", 0, "left no valid result", id="nothing"),
        pytest.param("{", 0, "left no valid result", id="not JSON"),
        pytest.param(training_result(OTHER).to_json(), 0, "the trainer reported run 2222", id="another run"),
        pytest.param('{"runKey": "1", "attempt": 1}', 0, "left no valid result", id="neither artifact nor failure"),
        pytest.param(training_result(KEY).to_json().replace(digest("a"), "sha256:no"), 0, "pattern", id="no digest"),
    ],
)
def test_what_breaks_the_contract_is_named(message: str, code: int, says: str) -> None:
    here = staged()
    here.end(here.newest("train"), message, code=code)
    here.settle()
    assert here.says("Failed").startswith("True ContractViolation: ")
    assert says in here.says("Failed")


def test_what_does_not_fit_a_list_of_the_status_is_cut() -> None:
    here = staged()
    score = training_result(KEY).evaluation[0]
    many: dict[str, Any] = {
        "evaluation": (score,) * 50,
        "timings": tuple(Timing(stage=f"s{n}", seconds=n) for n in range(20)),
    }
    here.end(here.newest("train"), training_result(KEY, **many).to_json())
    here.settle()
    assert len(here.status["evaluation"]) == 40
    assert len(here.status["timings"]) == 8


def test_a_long_message_fits_the_status() -> None:
    here = staged()
    failure = Failure(reason=FailureReason.INVALID_PLAN, message="é" * 4000)
    here.end(
        here.newest("train"),
        training_result(KEY, artifact="a").model_copy(update={"artifact": None, "failure": failure}).to_json(),
        code=64,
    )
    here.settle()
    assert here.status["phase"] == "Failed"


def test_a_job_is_not_judged_before_its_pod_was_seen_to_end() -> None:
    here = staged()
    job = here.newest("train")
    pod = here.pod(job)
    here.settle()
    factories.ended(job, complete=True, now=here.now)
    outcome = here.settle()
    assert outcome.wake_after == 15
    assert "attempts" not in here.status or here.status["attempts"] == []
    pod["status"] = factories.terminated(training_result(KEY).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert len(trainings(here)) == 1


def test_a_job_whose_pod_nobody_saw_is_judged_in_the_end() -> None:
    here = staged()
    factories.ended(here.newest("train"), complete=False, now=here.now)
    assert here.settle().wake_after == 15
    here.later(15)
    here.settle()
    here.later(3)
    here.settle()
    here.end(here.newest("resolve"), ResolveResult().to_json())
    here.settle()
    assert here.status["attempts"][0]["reason"] == "Unknown"
    assert len(trainings(here)) == 2


# --- trouble on the way


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        pytest.param(factories.unschedulable(), "Unschedulable", "Insufficient nvidia.com/gpu", id="unschedulable"),
        pytest.param(factories.image_pull_error(), "ImagePullFailed", '"nope": not found', id="image"),
    ],
)
def test_what_keeps_a_pod_from_running_is_said(pod: Object, reason: str, words: str) -> None:
    here = staged()
    here.pod(here.newest("train"), **pod)
    here.settle()
    assert here.says("Running").startswith(f"False {reason}: ")
    assert words in here.says("Ready")
    assert here.condition("Stalled") is None


def test_a_job_that_does_not_run_is_replaced_after_an_edit() -> None:
    here = staged()
    old = here.newest("train")
    here.pod(old, **factories.unschedulable())
    here.settle()
    here.edit(resources={"requests": {"cpu": "1"}})
    here.settle()
    new = here.newest("train")
    assert new["metadata"]["name"] == old["metadata"]["name"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert len(here.children["ConfigMap"]) == 2


def test_a_job_that_runs_is_left_alone_by_an_operational_edit() -> None:
    here = staged()
    here.pod(here.newest("train"))
    here.settle()
    here.edit(resources={"requests": {"cpu": "1"}}, retries={"limit": 7})
    here.settle()
    assert here.deleted == []
    assert len(trainings(here)) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: gpus', "QuotaExceeded"),
        ('violates PodSecurity "restricted:latest"', "PodSecurityDenied"),
        ("spec.template: Invalid value", "CreationDenied"),
    ],
)
def test_a_refusal_of_the_api_server_is_said(words: str, reason: str) -> None:
    here = world()
    here.decide()
    stage = next(m["metadata"]["name"] for m in here.decide().create if m["kind"] == "Job")
    here.denials = {stage: words}
    outcome = here.settle()
    assert here.says("Ready").startswith(f"False {reason}: ")
    assert words in here.says("Ready")
    assert any(manifest["metadata"]["name"] == stage for manifest in outcome.create)
    here.denials = {}
    here.settle()
    assert reason not in here.says("Ready")


def test_a_refused_job_gets_a_new_plan_after_an_edit() -> None:
    here = world()
    here.settle()
    here.denials = {"triage-111111-1": "no"}
    staged(here=here)
    here.children["Job"] = here.jobs("stage")  # the API server let in its plan alone
    here.edit(checkpoints={"keep": 5})
    here.denials = {}
    here.settle()
    plans = [item for item in here.children["ConfigMap"] if item["metadata"]["labels"]["finetune.dev/role"] == "train"]
    assert [plan["metadata"]["annotations"]["finetune.dev/generation"] for plan in plans] == ["2"]
    assert len(here.jobs("train")) == 1


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


# --- edits


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
