"""What experiment trackers ask of a training pod: the plan's part, and what they know it by."""

from finetune_contract.tracking import MlflowPlan, TrackingPlan, WeightsAndBiasesPlan
from finetune_operator.api.tracking import TrackingSpec
from finetune_operator.manifests.naming import Manifest

_MLFLOW_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - the variable's name
_MLFLOW_LOGIN = {"MLFLOW_TRACKING_USERNAME": "username", "MLFLOW_TRACKING_PASSWORD": "password"}
"""MLflow's own variables -> the keys of a Secret of type kubernetes.io/basic-auth."""

_WANDB_KEY = "WANDB_API_KEY"


def plan_of(spec: TrackingSpec | None) -> TrackingPlan | None:
    """Whom the pod tells; None: nobody."""
    if spec is None or not (spec.mlflow or spec.weights_and_biases):
        return None
    mlflow, wandb = spec.mlflow, spec.weights_and_biases
    return TrackingPlan(
        mlflow=MlflowPlan(uri=mlflow.uri, experiment=mlflow.experiment) if mlflow else None,
        weights_and_biases=(
            WeightsAndBiasesPlan(project=wandb.project, entity=wandb.entity, base_url=wandb.base_url) if wandb else None
        ),
    )


def environment(spec: TrackingSpec | None) -> tuple[Manifest, ...]:
    """The variables of a training pod; optional ones, because a missing Secret must not keep it from starting."""
    found: list[Manifest] = []
    if spec and spec.mlflow:
        if token := spec.mlflow.token_secret_ref:
            found.append(_from_secret(_MLFLOW_TOKEN, token.name, token.key))
        if login := spec.mlflow.basic_auth_secret_ref:
            found += [_from_secret(name, login.name, key) for name, key in _MLFLOW_LOGIN.items()]
    if spec and spec.weights_and_biases:
        key = spec.weights_and_biases.api_key_secret_ref
        found.append(_from_secret(_WANDB_KEY, key.name, key.key))
    return tuple(found)


def _from_secret(variable: str, secret: str, key: str) -> Manifest:
    reference = {"name": secret, "key": key, "optional": True}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
