"""What training and the trackers' process say to each other: one JSON document a line."""

from enum import StrEnum
from typing import Any

from finetune_contract.base import Document
from finetune_contract.evaluating import Score
from finetune_contract.results import Progress
from finetune_contract.tracking import TrackedRun, Tracker, TrackingPlan
from finetune_contract.training import TrainingPlan

Parameter = str | int | float | bool


class Outcome(StrEnum):
    """How an attempt has ended."""

    FINISHED = "Finished"
    FAILED = "Failed"
    STOPPED = "Stopped"
    """Told to stop; another attempt will go on."""


class Opening(Document):
    """What comes first: who is told, and about which run."""

    plan: TrackingPlan
    job: str
    """namespace/name."""
    run_key: str
    parameters: dict[str, Parameter]


class Point(Document):
    """Metrics at one optimiser step."""

    step: int
    at: float
    """Unix seconds."""
    metrics: dict[str, float]


class End(Document):
    """Nothing more comes."""

    outcome: Outcome
    seconds: float
    """What trackers get for what is left."""
    lost: int = 0
    """Points that training had to drop because the pipe was full."""


class Word(Document):
    """One line to the trackers' process, after the opening."""

    point: Point | None = None
    end: End | None = None


class Said(Document):
    """One line from it: how it stands with one tracker now."""

    tracker: Tracker
    run: TrackedRun | None = None
    problem: str | None = None
    """What keeps points from arriving; None: nothing does."""


_LATER = ("micro_batch_size",)
"""Hyperparameters that may differ between attempts of a run; what a tracker was told once cannot be changed."""


def parameters_of(plan: TrainingPlan) -> dict[str, Parameter]:
    """What decides the weights beside the inputs, flat: method, adapter, hyperparameters, the method's own settings."""
    settings = {
        "hyperparameters": plan.hyperparameters.model_dump(mode="json", by_alias=True, exclude=set(_LATER)),
        "adapter": plan.adapter.model_dump(mode="json", by_alias=True) if plan.adapter else {"variant": "None"},
    }
    for name in ("dpo", "orpo", "simpo", "kto", "online", "distillation"):
        if own := getattr(plan, name):
            settings[name] = own.model_dump(mode="json", by_alias=True, exclude={"teacher", "teacher_adapter"})
    flat: dict[str, Parameter] = {"method": plan.method.value}
    for group, values in settings.items():
        for name, value in values.items():
            if isinstance(value, list) and all(isinstance(each, str) for each in value):
                flat[f"{group}.{name}"] = ",".join(value)
            elif isinstance(value, Parameter):
                flat[f"{group}.{name}"] = value
    return flat


_OF_PROGRESS = ("loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "mfu", "peak_memory_bytes")


def metrics_of(progress: Progress) -> dict[str, float]:
    """The metrics of a training step, named as transformers' own integrations name them."""
    found: dict[str, Any] = {name: getattr(progress, name) for name in _OF_PROGRESS} | progress.figures
    return {f"train/{name}": float(value) for name, value in found.items() if value is not None}


def metrics_of_scores(scores: tuple[Score, ...]) -> dict[str, float]:
    """The metrics of an evaluation."""
    return {f"evaluation/{score.metric}/{score.system}": score.value for score in scores}
