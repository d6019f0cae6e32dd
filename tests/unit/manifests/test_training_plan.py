"""What a FineTuneJob's guards become in the plan of its pod."""

from typing import Any

import pytest

from finetune_contract.training import CheckpointPlan, EarlyStoppingPlan, TrainingPlan, ValidationPlan
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import ResolvedInputs, Run
from finetune_operator.manifests import training
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import NOW, digest

INPUTS = ResolvedInputs(dataset=digest("d"), dataset_uri="pvc://c/d", base=digest("b"), base_uri="pvc://c/b")
RUN = Run(key="3f" * 32, number=1, stage="s", started_at=NOW, inputs=INPUTS)


def plan_of(**spec: Any) -> TrainingPlan:
    job = FineTuneJob.model_validate(factories.make_job(**spec))
    return training.plan(job, RUN, 1, Settings(operator_image="operator:1", trainer_image="trainer:1"))


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        pytest.param({}, ValidationPlan(), id="defaults"),
        pytest.param(
            {"intervalSteps": 5, "maxRows": 7, "keepBest": True},
            ValidationPlan(interval_steps=5, max_rows=7, keep_best=True),
            id="keepBest",
        ),
        pytest.param(
            {"earlyStopping": {"patience": 3, "minDelta": 0.01}},
            ValidationPlan(early_stopping=EarlyStoppingPlan(patience=3, min_delta=0.01)),
            id="earlyStopping",
        ),
    ],
)
def test_validation_reaches_the_pod(validation: dict[str, Any], expected: ValidationPlan) -> None:
    assert plan_of(validation=validation).validation == expected


def test_checkpoint_intervals_reach_the_pod() -> None:
    plan = plan_of(checkpoints={"intervalMinutes": 3, "intervalSteps": 40, "keep": 5})
    assert plan.checkpoints == CheckpointPlan(interval_minutes=3, interval_steps=40, keep=5)
