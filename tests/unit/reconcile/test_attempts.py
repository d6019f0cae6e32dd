"""Attempts: how they end, which are tried again, and what keeps one from running."""

from typing import Any

import pytest

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import ResolveResult, Timing
from tests import factories
from tests.factories import Object, digest, training_result
from tests.unit.reconcile.runs import KEY, OTHER, disrupt, fail, staged, trainings, world

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
