"""What `spec.tracking` becomes in a training pod: part of its plan, and variables from Secrets that need not exist."""

from typing import Any

import pytest

from finetune_contract.tracking import MlflowPlan, TrackingPlan, WeightsAndBiasesPlan
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.manifests import training
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import Object
from tests.unit.manifests.test_training_plan import RUN, plan_of

MLFLOW = {"uri": "https://mlflow.example.com/base", "experiment": "support"}
WANDB = {"project": "support", "apiKeySecretRef": {"name": "wandb", "key": "api-key"}}


def variables(**spec: Any) -> dict[str, Object]:
    job = FineTuneJob.model_validate(factories.make_job(**spec))
    *_, made = training.build(job, RUN, 1, Settings(operator_image="operator:1", trainer_image="trainer:1"))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each for each in container["env"]}


def secret(name: str, key: str) -> Object:
    return {"secretKeyRef": {"name": name, "key": key, "optional": True}}


@pytest.mark.parametrize(
    ("tracking", "expected"),
    [
        pytest.param(None, None, id="none"),
        pytest.param({}, None, id="empty"),
        pytest.param(
            {"mlflow": MLFLOW},
            TrackingPlan(mlflow=MlflowPlan(uri="https://mlflow.example.com/base", experiment="support")),
            id="mlflow",
        ),
        pytest.param(
            {"weightsAndBiases": {**WANDB, "entity": "team", "baseUrl": "https://wandb.example.com"}},
            TrackingPlan(
                weights_and_biases=WeightsAndBiasesPlan(
                    project="support", entity="team", base_url="https://wandb.example.com"
                )
            ),
            id="wandb",
        ),
    ],
)
def test_the_plan_says_whom_to_tell(tracking: Object | None, expected: TrackingPlan | None) -> None:
    plan = plan_of(tracking=tracking)
    assert plan.tracking == expected
    assert ("tracking" in plan.to_json()) is (expected is not None)


def test_nothing_comes_from_secrets_unless_it_is_asked_for() -> None:
    for tracking in (None, {}, {"mlflow": MLFLOW}):
        assert not {name for name in variables(tracking=tracking) if name.startswith(("MLFLOW", "WANDB"))}


def test_secrets_are_optional_so_that_a_missing_one_holds_up_no_training() -> None:
    login = {**MLFLOW, "basicAuthSecretRef": {"name": "login"}}
    found = variables(tracking={"mlflow": login, "weightsAndBiases": WANDB})
    assert found["MLFLOW_TRACKING_USERNAME"]["valueFrom"] == secret("login", "username")
    assert found["MLFLOW_TRACKING_PASSWORD"]["valueFrom"] == secret("login", "password")
    assert found["WANDB_API_KEY"]["valueFrom"] == secret("wandb", "api-key")
    token = {**MLFLOW, "tokenSecretRef": {"name": "mlflow", "key": "token"}}
    assert variables(tracking={"mlflow": token})["MLFLOW_TRACKING_TOKEN"]["valueFrom"] == secret("mlflow", "token")


@pytest.mark.parametrize(
    "uri", ["ftp://host", "https://user:password@host", "https://host/?q=1", "https://host/#x", "host:5000", "https://"]
)
def test_addresses_that_are_none_or_hold_a_password_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="uri"):
        FineTuneJob.model_validate(factories.make_job(tracking={"mlflow": {**MLFLOW, "uri": uri}}))
