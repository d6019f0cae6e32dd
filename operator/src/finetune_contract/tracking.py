"""Experiment trackers: where a run's metrics and hyperparameters go beside `/progress`, if a job asks for it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.base import Document, Label


class Tracker(StrEnum):
    """A kind of tracker."""

    MLFLOW = "MLflow"
    WEIGHTS_AND_BIASES = "WeightsAndBiases"


class MlflowPlan(Document):
    """An MLflow server; its token or user and password are in MLflow's own environment variables."""

    uri: str
    experiment: str


class WeightsAndBiasesPlan(Document):
    """A project of Weights & Biases; the API key is in its own environment variable."""

    project: str
    entity: str | None = None
    """A user or team; None: the API key's own."""
    base_url: str | None = None
    """A server of one's own; None: wandb.ai."""


class TrackingPlan(Document):
    """Who is told how a run goes; nobody by default."""

    mlflow: MlflowPlan | None = None
    weights_and_biases: WeightsAndBiasesPlan | None = None


class TrackedRun(Document):
    """A run as a tracker knows it; all attempts of a run go on in the same one."""

    tracker: Tracker
    run: Label
    """Its id there."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """Where people look at it; None: the tracker is not reachable by a browser."""
