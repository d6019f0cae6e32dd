"""A job with a gate: what it publishes, what it keeps, and that deciding again trains nothing."""

import json
from typing import Any

import pytest

from finetune_contract.evaluating import TUNED, Baseline, EvaluationResult, Metric, Score
from finetune_contract.failure import Failure, FailureReason
from finetune_contract.results import TrainingResult
from tests import factories
from tests.factories import Object, digest, stage_result, training_result
from tests.unit.reconcile.runs import KEY, OTHER, staged, succeed, trainings, world
from tests.unit.reconcile.world import World

EVALUATION = {"metrics": ["ExactMatch"], "baselines": ["ZeroShot"]}
LOW = {"rules": [{"metric": "ExactMatch", "atLeast": 0.4}]}
HIGH = {"rules": [{"metric": "ExactMatch", "atLeast": 0.9}]}
"""`training_result` says that ExactMatch of Tuned is 0.5."""
HIGH_FAILS = "ExactMatch 0.5 [0.25, 0.75] is not atLeast 0.9"


def gated(gate: dict[str, Any] | None, **spec: Any) -> World:
    """A job whose first run has made artifact `a`."""
    here = staged(here=world(evaluation=EVALUATION, **({"gate": gate} if gate else {}), **spec))
    succeed(here)
    return here


def another_run(here: World, letter: str, key: str = OTHER, outcome: TrainingResult | None = None) -> None:
    """An edit of the rank asks for another run, which makes another artifact."""
    here.edit(adapter={"rank": ord(letter)})
    here.settle()
    here.end(here.newest("stage"), stage_result(key, outcome=outcome).to_json())
    here.settle()
    if outcome is None:
        succeed(here, key, letter)


def verdicts(here: World) -> list[tuple[str, str | None]]:
    return [(record["artifactDigest"][7:8], record["artifact"].get("verdict")) for record in here.status["runs"]]


def test_an_artifact_that_passes_is_the_jobs() -> None:
    here = gated(LOW)
    assert here.status["phase"] == "Succeeded"
    assert here.says("Ready").startswith("True Succeeded")
    assert here.says("GatePassed") == "True GatePassed: ExactMatch 0.5 [0.25, 0.75] is atLeast 0.4"
    assert here.status["artifact"]["verdict"] == "Passed"
    assert here.status["gate"] == {
        "digest": digest("a"),
        "verdict": "Passed",
        "key": here.status["gate"]["key"],
        "rules": [{"outcome": "Passed", "message": "ExactMatch 0.5 [0.25, 0.75] is atLeast 0.4"}],
    }
    assert [event.reason for event in here.events] == ["Succeeded", "GatePassed"]


def test_an_artifact_that_fails_is_kept_but_not_the_jobs_and_not_trained_again() -> None:
    here = gated(HIGH)
    assert here.status["phase"] == "GateFailed"
    assert here.says("GatePassed") == f"False GateFailed: {HIGH_FAILS}"
    assert here.says("Ready").startswith(f"False GateFailed: {HIGH_FAILS}. Train on more or better data")
    assert here.says("Stalled").startswith("True GateFailed")
    assert here.says("Complete").startswith("True Succeeded")
    assert here.condition("Failed") is None
    assert "artifact" not in here.status
    assert here.status["runs"][0]["artifact"]["digest"] == digest("a")
    assert verdicts(here) == [("a", "Failed")]
    assert [(event.type, event.reason) for event in here.events][1:] == [("Warning", "GateFailed")]
    here.later(3600)
    outcome = here.act()
    assert (outcome.create, outcome.events, outcome.wake_after) == ((), (), None)


def test_the_last_good_artifact_stays_while_a_new_run_goes_on_and_if_that_fails() -> None:
    here = gated(LOW)
    good = here.status["artifact"]
    here.edit(gate=HIGH, adapter={"rank": 4})
    here.settle()
    assert here.status["artifact"] == good
    assert here.condition("GatePassed") is not None, "the spec's run is not known yet"
    here.end(here.newest("stage"), stage_result(OTHER).to_json())
    here.settle()
    assert here.condition("GatePassed") is None
    assert here.status["artifact"] == good
    succeed(here, OTHER, "c")
    assert here.status["phase"] == "GateFailed"
    assert here.status["artifact"] == good
    assert verdicts(here) == [("a", "Passed"), ("c", "Failed")]
    assert here.status["gate"]["digest"] == digest("c")


def test_a_relaxed_gate_lets_the_artifact_through_and_nothing_is_trained_or_measured() -> None:
    here = gated(HIGH)
    created = list(here.created)
    here.edit(gate=LOW)
    here.settle()
    assert here.created == created
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["digest"] == digest("a")
    assert here.status["artifact"]["verdict"] == "Passed"
    assert here.events[-1].reason == "GatePassed"


def test_without_a_gate_any_artifact_is_the_jobs() -> None:
    here = gated(HIGH)
    here.raw["spec"].pop("gate")
    here.edit()
    here.settle()
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["digest"] == digest("a")
    assert "verdict" not in here.status["artifact"]
    assert "gate" not in here.status
    assert here.condition("GatePassed") is None


def test_a_stricter_gate_marks_the_artifact_and_does_not_take_it_away() -> None:
    here = gated(LOW)
    here.edit(gate=HIGH)
    here.settle()
    assert here.status["phase"] == "GateFailed"
    assert here.status["artifact"]["digest"] == digest("a")
    assert here.status["artifact"]["verdict"] == "Failed"
    assert here.created.count("triage-111111-1") == 2, "its plan and its Job"


def test_a_rule_on_a_new_metric_is_decided_when_that_is_measured() -> None:
    here = gated(LOW)
    rule = {"metric": "EvalLoss", "atMost": 1.4}
    here.edit(evaluation={"metrics": ["ExactMatch", "EvalLoss"]}, gate={"rules": [rule]})
    here.settle()
    assert here.says("GatePassed").startswith("Unknown NotMeasured")
    assert here.status["phase"] == "Evaluating"
    assert here.status["artifact"]["verdict"] == "Passed", "nothing is known against it yet"
    scores = (Score(metric=Metric.EVAL_LOSS, system=TUNED, value=1.5, rows=7),)
    here.end(here.newest("evaluate"), EvaluationResult(evaluation=scores).to_json())
    here.settle()
    assert here.says("GatePassed") == "False GateFailed: EvalLoss 1.5 is not atMost 1.4"
    assert trainings(here) == ["triage-111111-1"]


def test_an_artifact_that_cannot_be_measured_does_not_pass() -> None:
    here = staged(here=world(evaluation=EVALUATION, gate=LOW))
    here.edit(evaluation={**EVALUATION, "maxRows": 7})
    here.settle()
    here.end(here.newest("train"), training_result(KEY, evaluation_key="another").to_json())
    here.settle()
    failure = Failure(reason=FailureReason.DATASET_INVALID, message="no rows")
    here.end(here.newest("evaluate"), EvaluationResult(failure=failure).to_json(), code=66)
    here.settle()
    assert here.says("Ready").startswith("False DatasetInvalid: spec.evaluation: no rows. ")
    assert here.says("GatePassed").startswith("Unknown NotMeasured")
    assert "artifact" not in here.status
    assert verdicts(here) == [("a", "Undecided")]


def test_no_held_out_rows_no_pass() -> None:
    here = staged(here=world(evaluation=EVALUATION, gate=LOW))
    here.end(here.newest("train"), training_result(KEY, evaluation=()).to_json())
    here.settle()
    assert here.status["phase"] == "GateFailed"
    assert here.says("GatePassed").endswith("nothing was measured, as the Dataset has no test rows")


def test_a_status_that_is_lost_is_decided_again_from_the_store() -> None:
    here = gated(HIGH)
    here.wipe()
    here.children = {}
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "GateFailed"
    assert verdicts(here) == [("a", "Failed")]
    assert here.jobs("train") == []


def test_an_earlier_run_is_judged_again_by_what_was_measured_then() -> None:
    here = gated(LOW)
    another_run(here, "c")
    assert here.status["artifact"]["digest"] == digest("c")
    here.edit(gate=HIGH, adapter={"rank": 16})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["phase"] == "GateFailed"
    assert here.status["artifact"]["digest"] == digest("c")
    assert verdicts(here) == [("c", "Passed"), ("a", "Failed")]
    here.edit(gate=LOW)
    here.settle()
    assert here.status["artifact"]["digest"] == digest("a")


def test_a_run_that_failed_its_gate_is_trained_again_only_if_the_store_has_lost_it() -> None:
    here = gated(HIGH)
    another_run(here, "c")
    for outcome in (training_result(KEY), None):
        here.edit(adapter={"rank": 16}, rerun=f"r{bool(outcome)}".lower())
        here.settle()
        here.end(here.newest("stage"), stage_result(KEY, outcome=outcome).to_json())
        here.settle()
        if outcome:
            assert trainings(here).count("triage-111111-1") == 1
            another_run(here, "d", "3" * 64, training_result("3" * 64, artifact="d"))
    assert here.newest("train")["metadata"]["name"] == "triage-111111-1"
    assert here.status["phase"] == "Starting"


@pytest.mark.parametrize(("gate", "verdict"), [(LOW, "Passed"), (HIGH, "Failed")], ids=["passed", "failed"])
def test_a_run_that_is_come_back_to_before_another_ended_has_its_verdict_still(gate: Object, verdict: str) -> None:
    here = gated(gate)
    here.edit(adapter={"rank": 4})
    here.settle()
    here.end(here.newest("stage"), stage_result(OTHER).to_json())
    here.settle()
    told = len([event for event in here.events if event.reason.startswith("Gate")])
    here.edit(adapter={"rank": 16})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert here.status["runs"][-1]["artifact"]["verdict"] == verdict
    assert here.status["gate"]["verdict"] == verdict
    assert len([event for event in here.events if event.reason.startswith("Gate")]) == told


def test_a_token_does_not_train_what_failed_its_gate_again() -> None:
    here = gated(HIGH)
    here.edit(rerun="again")
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert trainings(here) == ["triage-111111-1"]
    assert here.status["phase"] == "GateFailed"


# --- Previous

WITH_PREVIOUS = {"metrics": ["ExactMatch"], "baselines": ["Previous"]}
NOT_WORSE = {"rules": [{"metric": "ExactMatch", "notWorseThan": "Previous"}]}


def plan_of(here: World) -> dict[str, Any]:
    found = [item for item in here.made if item["kind"] == "ConfigMap" and "plan.json" in item["data"]]
    return dict(json.loads(found[-1]["data"]["plan.json"]))


def compared(here: World, key: str, letter: str, difference: float) -> None:
    plan = plan_of(here)
    scores = (
        Score(metric=Metric.EXACT_MATCH, system=TUNED, value=0.5, rows=9),
        Score(metric=Metric.EXACT_MATCH, system=Baseline.PREVIOUS, value=0.5, rows=9, difference=difference),
    )
    result = training_result(key, artifact=letter, evaluation=scores, evaluation_key=plan["evaluationKey"])
    here.end(here.newest("train"), result.to_json())
    here.settle()


def with_previous() -> World:
    here = staged(here=world(evaluation=WITH_PREVIOUS, gate=NOT_WORSE))
    assert plan_of(here)["evaluation"]["baselines"] == []
    assert "previous" not in plan_of(here)["evaluation"]
    succeed(here)
    assert here.says("GatePassed") == (
        "True GatePassed: ExactMatch notWorseThan Previous: there is no previous artifact yet"
    )
    return here


def test_the_first_artifact_has_nothing_to_be_compared_with_and_the_next_has() -> None:
    here = with_previous()
    here.edit(adapter={"rank": 4})
    here.settle()
    here.end(here.newest("stage"), stage_result(OTHER).to_json())
    here.settle()
    assert here.status["run"]["previous"]["digest"] == digest("a")
    evaluation = plan_of(here)["evaluation"]
    assert evaluation["baselines"] == ["Previous"]
    assert evaluation["previous"] == factories.stored("a", "artifacts").model_dump(mode="json")
    assert evaluation["previousBase"]["digest"] == digest("b")
    compared(here, OTHER, "c", -0.1)
    assert here.says("GatePassed") == (
        "False GateFailed: ExactMatch 0.5 is not notWorseThan Previous 0.5: worse by 0.1"
    )
    assert here.status["artifact"]["digest"] == digest("a")
    # The next one is compared with the good one, not with the bad one.
    here.edit(adapter={"rank": 5})
    here.settle()
    here.end(here.newest("stage"), stage_result("3" * 64).to_json())
    here.settle()
    assert here.status["run"]["previous"]["digest"] == digest("a")
    compared(here, "3" * 64, "e", 0.1)
    assert here.status["artifact"]["digest"] == digest("e")


def test_an_artifact_is_never_its_own_previous() -> None:
    here = with_previous()
    here.edit(adapter={"rank": 4})
    here.settle()
    here.end(here.newest("stage"), stage_result(OTHER).to_json())
    here.settle()
    compared(here, OTHER, "c", 0.1)
    here.edit(adapter={"rank": 16})
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY, outcome=training_result(KEY)).to_json())
    here.settle()
    assert "previous" not in here.status["run"], "judged as it was then"
    assert here.status["artifact"]["digest"] == digest("a")
    assert here.jobs("evaluate") == []


# --- what an older release wrote


@pytest.mark.parametrize("gate", [None, LOW, HIGH])
def test_a_job_that_an_older_release_finished_goes_on_as_it_was(gate: dict[str, Any] | None) -> None:
    here = gated(None)
    for record in here.raw["status"]["runs"]:
        record.pop("artifact")
    before = here.status
    if gate is None:
        here.settle()
        assert here.status == before
        return
    here.edit(gate=gate)
    here.settle()
    assert here.jobs("train")[1:] == []
    assert here.status["artifact"]["verdict"] == ("Passed" if gate is LOW else "Failed")
