"""An edit of spec.evaluation measures the artifact anew and trains nothing."""

import json

from finetune_contract.evaluating import EvaluationResult, Metric, Score
from finetune_contract.failure import Failure, FailureReason
from tests.factories import training_result
from tests.unit.reconcile.runs import KEY, running, succeed, trainings
from tests.unit.reconcile.world import World

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
