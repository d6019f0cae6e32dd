"""`spec.tracking` of a FineTuneJob: experiment trackers beside `/metrics`, and the runs as they know them."""

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_contract.tracking import Tracker
from finetune_operator.api.base import ApiModel, NameReference, SecretKeyReference, Word

TrackerUri = Annotated[
    str, StringConstraints(min_length=8, max_length=256, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
]
TrackerName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]


class MlflowTracking(ApiModel):
    """An MLflow tracking server; a run there is found again by its tag `finetune.runKey`."""

    uri: TrackerUri
    """Its address, such as `https://mlflow.example.com`; the training pod must reach it."""
    experiment: TrackerName
    """The experiment that gets a run for each run of the job; made if there is none of this name."""
    token_secret_ref: SecretKeyReference | None = None
    """The Secret with a bearer token, if the server wants one."""
    basic_auth_secret_ref: NameReference | None = None
    """The Secret of type kubernetes.io/basic-auth (username, password), if the server wants these."""


class WeightsAndBiasesTracking(ApiModel):
    """A project of Weights & Biases."""

    project: TrackerName
    """The project that gets a run for each run of the job."""
    entity: TrackerName | None = None
    """The team or user that it belongs to; unset: the API key's own."""
    base_url: TrackerUri | None = None
    """A server of your own; unset: wandb.ai."""
    api_key_secret_ref: SecretKeyReference
    """The Secret with the API key."""


class TrackingSpec(ApiModel):
    """Experiment trackers that are told of metrics and resolved hyperparameters, and of nothing else."""

    mlflow: MlflowTracking | None = None
    """An MLflow tracking server."""
    weights_and_biases: WeightsAndBiasesTracking | None = None
    """A project of Weights & Biases."""


class TrackedRunStatus(ApiModel):
    """The present run as a tracker knows it."""

    tracker: Tracker
    """MLflow or WeightsAndBiases."""
    run: Word
    """Its id there; all attempts of a run have the same."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """Where to look at it."""
