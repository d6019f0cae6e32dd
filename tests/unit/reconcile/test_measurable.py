"""What cannot be measured is said before anything is staged, and again when only the evaluation is edited."""

from typing import Any

import pytest

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import Metric
from finetune_contract.methods import METHOD_FORMATS, Method
from finetune_contract.metrics import METRIC_FORMATS, unfit_metrics
from finetune_contract.paths import ENV_JUDGE_KEY, TASKS_MOUNT
from finetune_contract.training import TrainingPlan
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import stage_result
from tests.unit.reconcile.world import World

JUDGE = {
    "endpoint": "https://judge/v1",
    "model": "judge-1",
    "apiKeySecretRef": {"name": "judge", "key": "token"},
    "maxFailedShare": 0.1,
}


def world(**evaluation: Any) -> World:
    here = World(factories.make_job(evaluation=evaluation))
    here.others[Reference("Dataset", "tickets")] = factories.ready_dataset()
    return here


@pytest.mark.parametrize("row_format", RowFormat)
def test_every_format_has_a_metric_and_the_default_fits_all(row_format: RowFormat) -> None:
    assert unfit_metrics([Metric.EVAL_LOSS], row_format) is None
    assert set(METRIC_FORMATS) == set(Metric)


def test_classification_metrics_need_labels() -> None:
    said = unfit_metrics([Metric.EVAL_LOSS, Metric.MACRO_F1], RowFormat.MESSAGES)
    assert said is not None
    assert said.startswith("spec.evaluation.metrics: MacroF1 needs Classification rows; the dataset has Messages rows")
    assert "RougeL" in said
    assert RowFormat.CLASSIFICATION in METHOD_FORMATS[Method.SFT]


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        pytest.param({"metrics": ["PreferenceAccuracy"]}, "PreferenceAccuracy needs Preference rows", id="format"),
        pytest.param({"metrics": ["RegexMatch"], "regex": {"pattern": "("}}, "is no regular expression", id="pattern"),
        pytest.param({"metrics": ["JSONSchemaValid"], "jsonSchema": {"schema": "{x"}}, "is no JSON", id="schema"),
        pytest.param(
            {
                "metrics": ["JudgeWinRate"],
                "baselines": ["ZeroShot"],
                "judge": {**JUDGE, "promptTemplate": "which? {a}"},
            },
            "promptTemplate: has to contain {a} and {b}",
            id="template",
        ),
    ],
)
def test_a_job_that_cannot_be_measured_is_not_accepted(evaluation: dict[str, Any], says: str) -> None:
    here = world(**evaluation)
    here.settle()
    assert here.says("Accepted").startswith("False MetricUnfit: spec.evaluation.")
    assert says in here.says("Accepted")
    assert here.condition("Stalled") is not None
    assert here.jobs() == []


def test_a_judge_and_tasks_reach_the_pod() -> None:
    here = world(
        metrics=["JudgeWinRate", "Benchmark"],
        baselines=["ZeroShot"],
        judge=JUDGE,
        benchmark={"configMap": {"name": "words"}, "tasks": ["colours"], "limit": 50},
    )
    here.settle()
    here.end(here.newest("stage"), stage_result("1" * 64).to_json())
    created = here.decide().create
    (plan,) = [TrainingPlan.model_validate_json(each["data"]["plan.json"]) for each in created if "data" in each]
    assert plan.evaluation.judge is not None
    assert (plan.evaluation.judge.model, plan.evaluation.judge.max_failed_share) == ("judge-1", 0.1)
    assert plan.evaluation.benchmark is not None
    assert (plan.evaluation.benchmark.tasks, plan.evaluation.benchmark.limit) == (("colours",), 50)
    (job,) = [each for each in created if each["kind"] == "Job"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    secrets = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container["env"]
        if "valueFrom" in each and "secretKeyRef" in each["valueFrom"]
    }
    assert secrets == {ENV_JUDGE_KEY: {"name": "judge", "key": "token"}}
    assert {"name": "tasks", "configMap": {"name": "words"}} in pod["volumes"]
    assert {"name": "tasks", "mountPath": str(TASKS_MOUNT), "readOnly": True} in container["volumeMounts"]
    assert "token" not in plan.to_json()
