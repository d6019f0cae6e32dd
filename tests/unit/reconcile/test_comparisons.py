"""Baselines and reward models of other jobs: latched when they are there, told of when not, never trained for."""

import json
from typing import Any

import pytest

from finetune_contract.evaluating import EvaluationResult, Metric, Score
from finetune_contract.results import ArtifactType
from finetune_contract.training import ReevaluationPlan, TrainingPlan
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import digest, finished_job, stage_result, training_result
from tests.unit.reconcile.world import World

KEY = "1" * 64
OTHER = {"name": "old", "fineTuneJob": {"name": "old-triage"}}
HOSTED = {
    "name": "hosted",
    "endpoint": {"url": "https://api/v1", "model": "big-1", "apiKeySecretRef": {"name": "api", "key": "token"}},
}
SCORES = (Score(metric=Metric.EXACT_MATCH, system="Tuned", value=0.9, rows=7),)


def world(*others: dict[str, Any], **spec: Any) -> World:
    evaluation = {"metrics": ["ExactMatch"], "namedBaselines": [OTHER], **spec.pop("evaluation", {})}
    here = World(factories.make_job(evaluation=evaluation, **spec), factories.ready_dataset(), *others)
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    return here


def plans(here: World, kind: Any = TrainingPlan, job: str = "") -> Any:
    found = [each for each in here.made if "data" in each and job in each["metadata"]["name"]]
    return kind.model_validate_json(found[-1]["data"]["plan.json"])


def test_another_jobs_artifact_reaches_the_pod_and_stays_when_that_job_makes_a_new_one() -> None:
    here = world(finished_job("old-triage", artifact="a", base="b"))
    (baseline,) = plans(here).evaluation.named_baselines
    assert (baseline.name, baseline.artifact.digest, baseline.base.digest) == ("old", digest("a"), digest("b"))
    key = plans(here).evaluation_key
    here.end(here.newest("train"), training_result(KEY, evaluation_key=key).to_json())
    here.settle()
    assert here.status["phase"] == "Succeeded"
    here.others[Reference("FineTuneJob", "old-triage")] = finished_job("old-triage", artifact="c")
    here.settle()
    assert here.jobs("evaluate") == []
    assert here.status["run"]["measuring"][0]["digest"] == digest("a")


def test_a_whole_model_is_compared_without_a_base() -> None:
    here = world(finished_job("old-triage", artifact="a", type_=ArtifactType.MODEL))
    (baseline,) = plans(here).evaluation.named_baselines
    assert baseline.base is None


def test_training_does_not_wait_for_a_baseline_and_the_gate_does() -> None:
    gate = {"rules": [{"metric": "ExactMatch", "betterThan": "old"}]}
    here = world(gate=gate)
    assert plans(here).evaluation.named_baselines == ()
    assert here.says("Evaluated") == (
        "False BaselineNotFound: spec.evaluation.namedBaselines[0].fineTuneJob.name: there is no FineTuneJob "
        "'old-triage'; create it"
    )
    here.end(here.newest("train"), training_result(KEY, evaluation_key=plans(here).evaluation_key).to_json())
    here.settle()
    assert here.says("Ready").startswith("False BaselineNotFound")
    assert here.says("GatePassed").startswith("Unknown NotMeasured")
    here.others[Reference("FineTuneJob", "old-triage")] = factories.make_job("old-triage")
    here.settle()
    assert here.says("Evaluated").startswith("False BaselineNotReady")
    assert here.jobs("evaluate") == []

    here.others[Reference("FineTuneJob", "old-triage")] = finished_job("old-triage")
    here.settle()
    plan = plans(here, ReevaluationPlan, "evaluate")
    assert [each.name for each in plan.training.evaluation.named_baselines] == ["old"]
    old = Score(metric=Metric.EXACT_MATCH, system="old", value=0.5, rows=7, difference=0.4)
    here.end(here.newest("evaluate"), EvaluationResult(evaluation=(*SCORES, old)).to_json())
    here.settle()
    assert here.says("GatePassed").startswith("True GatePassed: ExactMatch 0.9 is betterThan old 0.5")
    assert len(here.jobs("train")) == 1


def test_a_baseline_that_comes_while_training_goes_on_is_measured_afterwards_and_not_told_of_any_more() -> None:
    here = world()
    first = plans(here).evaluation_key
    here.others[Reference("FineTuneJob", "old-triage")] = finished_job("old-triage")
    here.settle()
    assert here.says("Evaluated") == ""
    here.end(here.newest("train"), training_result(KEY, evaluation_key=first).to_json())
    here.settle()
    assert len(here.jobs("evaluate")) == 1


@pytest.mark.parametrize(
    ("evaluation", "other", "says"),
    [
        pytest.param({}, ArtifactType.REWARD_MODEL, "made a reward model, which writes no answers", id="baseline"),
        pytest.param(
            {"metrics": ["RewardScore"], "namedBaselines": [], "rewardModel": {"fineTuneJob": {"name": "old-triage"}}},
            ArtifactType.ADAPTER,
            "made no reward model; name one with spec.method Reward",
            id="reward",
        ),
    ],
)
def test_what_cannot_play_its_part_is_told_and_the_artifact_is_kept(
    evaluation: dict[str, Any], other: ArtifactType, says: str
) -> None:
    here = world(finished_job("old-triage", type_=other), evaluation=evaluation)
    here.end(here.newest("train"), training_result(KEY, evaluation_key=plans(here).evaluation_key).to_json())
    here.settle()
    assert here.condition("Stalled") is not None
    assert says in here.says("Evaluated")
    assert here.status["artifact"]["run"] == KEY


def test_a_reward_model_reaches_the_pod() -> None:
    wanted = {"metrics": ["RewardScore"], "namedBaselines": [], "rewardModel": {"fineTuneJob": {"name": "judge"}}}
    here = world(finished_job("judge", artifact="e", type_=ArtifactType.REWARD_MODEL), evaluation=wanted)
    assert plans(here).evaluation.reward_model.digest == digest("e")


def test_an_endpoint_reaches_the_pod_and_its_key_only_as_a_reference() -> None:
    here = world(evaluation={"namedBaselines": [OTHER, HOSTED]})
    plan = plans(here)
    (baseline,) = plan.evaluation.named_baselines
    assert (baseline.name, baseline.endpoint.model) == ("hosted", "big-1")
    (job,) = [each for each in here.made if each["kind"] == "Job" and "stage" not in each["metadata"]["name"]]
    env = {each["name"]: each for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env[baseline.endpoint.key_variable]["valueFrom"] == {"secretKeyRef": {"name": "api", "key": "token"}}
    assert "token" not in json.dumps(plan.to_json())


@pytest.mark.parametrize(("stripped", "accepted"), [(True, "True"), (False, "False MetricUnfit")])
def test_the_original_prompt_needs_rows_without_it(stripped: bool, accepted: str) -> None:
    here = World(factories.make_job(evaluation={"metrics": ["ExactMatch"], "baselines": ["OriginalPrompt"]}))
    dataset = factories.ready_dataset()
    dataset["spec"]["prepare"] = {"stripInstructions": stripped}
    here.others[Reference("Dataset", "tickets")] = dataset
    here.settle()
    assert here.says("Accepted").startswith(accepted)


def test_tasks_that_lm_eval_knows_need_a_pod_that_may_download() -> None:
    wanted = {"metrics": ["Benchmark"], "namedBaselines": [], "benchmark": {"tasks": ["arc_easy"], "download": True}}
    here = world(evaluation=wanted)
    assert plans(here).evaluation.benchmark.download
    (job,) = [each for each in here.made if each["kind"] == "Job" and "stage" not in each["metadata"]["name"]]
    pod = job["spec"]["template"]["spec"]
    assert "HF_HUB_OFFLINE" not in {each["name"] for each in pod["containers"][0]["env"]}
    assert "tasks" not in {volume["name"] for volume in pod["volumes"]}
