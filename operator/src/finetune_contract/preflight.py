"""What a training would need, found out before it gets a GPU: what a preflight pod is asked, and what it answers."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from finetune_contract.base import Count, Document, Label
from finetune_contract.failure import Failure
from finetune_contract.training import TrainingPlan

MOST_WAYS = 3
"""Ways to make a training fit that are told: the cheapest."""


class Accelerator(Document):
    """A kind of device that a training can run on."""

    name: Label
    memory_bytes: Annotated[int, Field(gt=0)]
    """Of one device."""
    flops: Annotated[float, Field(gt=0)] | None = None
    """Floating-point operations per second that training reaches on one, as `mfu` counts them; None: not known."""


class PreflightPlan(Document):
    """Say what a training would take, without training."""

    version: Literal[1] = 1
    training: TrainingPlan
    """The attempt that is to be made."""
    device: Accelerator | None = None
    """What it is to run on; None where its memory is not known."""
    on_gpu: bool = True
    """Whether it is to run on GPUs at all."""
    others: Annotated[tuple[Accelerator, ...], Field(max_length=32)] = ()
    """What else the cluster has."""


class Fit(StrEnum):
    """Whether a training fits its device."""

    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    UNKNOWN = "Unknown"
    """The device's memory or the method's appetite is not known."""


class Way(Document):
    """A change of the spec after which a training would fit."""

    change: Annotated[str, StringConstraints(max_length=256)]
    """The fields and their values."""
    predicted_peak_bytes: Count
    """Of the device that would need most."""


class PreflightResult(Document):
    """What a preflight pod leaves."""

    verdict: Fit = Fit.UNKNOWN
    predicted_peak_bytes: Count | None = None
    """The most that a device would hold at once; None where that cannot be predicted for the method."""
    micro_batch_size: Count | None = None
    """Sequences per forward pass that this is for: the most that fit."""
    total_steps: Count = 0
    tokens: Count = 0
    """Tokens that are trained on, per epoch."""
    truncated_tokens: Count = 0
    is_estimate: bool = False
    """Tokens and steps are worked out from a sample of the rows."""
    seconds: float | None = None
    """How long the steps would take on all devices together; None where their speed is not known."""
    ways: Annotated[tuple[Way, ...], Field(max_length=MOST_WAYS)] = ()
    """What would make it fit, cheapest first."""
    failure: Failure | None = None
    """Why the training would fail before its first step, or why this could not be found out."""

    @model_validator(mode="after")
    def _ways_of_what_does_not_fit(self) -> Self:
        if self.ways and self.verdict is not Fit.DOES_NOT_FIT:
            raise ValueError("only what does not fit has ways to make it fit")
        return self
