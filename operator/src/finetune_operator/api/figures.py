"""The figures of a status: how training goes, what a preflight predicted, what was measured, and what it cost."""

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_contract.preflight import Fit
from finetune_operator.api.base import ApiModel, JobFailure, Word


class FigureStatus(ApiModel):
    """One figure of a method."""

    name: Word
    """TRL's name of it."""
    value: float
    """Its value at the last logged step."""


class PreflightWay(ApiModel):
    """A change after which the training would fit."""

    change: Annotated[str, StringConstraints(max_length=256)]
    """Fields and their values."""
    predicted_peak_bytes: Annotated[int, Field(ge=0)]
    """What a device would then hold."""


class PreflightStatus(ApiModel):
    """What was found out before a GPU was asked for."""

    key: Word
    """Names what was asked; another input, field, resource or kind of GPU asks again."""
    generation: Annotated[int, Field(ge=0)] = 0
    """The spec's generation when it was asked; what failed is asked again after an edit."""
    verdict: Fit | None = None
    """Fits, DoesNotFit, or Unknown; unset while it is found out."""
    device: Word | None = None
    """The kind of GPU that was asked for."""
    device_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """Memory of one."""
    predicted_peak_bytes: Annotated[int, Field(ge=0)] | None = None
    """The most that one device would hold; attempts say what was measured."""
    micro_batch_size: Annotated[int, Field(ge=0)] | None = None
    """Sequences per forward pass that this is for."""
    total_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps."""
    tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that are trained on, per epoch."""
    estimated_hours: float | None = None
    """How long training would take; unset where the speed of the GPU is not in the operator's settings."""
    estimated_gpu_hours: float | None = None
    """The same times the GPUs."""
    ways: Annotated[list[PreflightWay], Field(max_length=3)] = []
    """What would make it fit, cheapest first."""
    failure: JobFailure | None = None
    """What training would fail for, or why this could not be found out."""


class ScoreStatus(ApiModel):
    """One metric of one system on the held-out rows."""

    metric: Word
    """What was measured."""
    system: Word
    """Tuned, or the baseline."""
    value: float
    """The measured value."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    rows: Annotated[int, Field(ge=0)] = 0
    """Rows that it was measured on."""
    difference: float | None = None
    """Of a baseline: the tuned model's value less this one's, on the same rows."""
    difference_low: float | None = None
    """Lower end of the difference's 95 % interval."""
    difference_high: float | None = None
    """Upper end of the difference's 95 % interval."""
    p_value: float | None = None
    """Of a baseline: how probable so large a difference would be, were the two equally good."""


class TimingStatus(ApiModel):
    """Where the time went."""

    stage: Word
    """Loading, FirstStep, Training, Evaluating or Publishing."""
    seconds: float
    """Wall-clock seconds that it took."""


class CostStatus(ApiModel):
    """What the present run's attempts that ended have cost."""

    gpu_hours: float
    """Hours of accelerators, over all attempts."""
    lost_gpu_hours: float
    """Those of them whose work was not saved: steps after the last checkpoint, and starts that came to nothing."""
    amount: float | None = None
    """What the hours cost by the platform's price list when they were used; unset: it has no price for them."""
    currency: Annotated[str, StringConstraints(max_length=16)] | None = None
    """Of the amount."""


class SpeedStatus(ApiModel):
    """How fast the tuned model answered held-out prompts in its evaluation, and what that comes to."""

    device: Word
    """`cpu`, or the GPU's name."""
    batch_size: Annotated[int, Field(ge=0)]
    """Prompts that were answered at once."""
    prompt_tokens_per_second: float
    """Tokens read per second."""
    generated_tokens_per_second: float
    """Tokens written per second."""
    latency_p50: float
    """Seconds to a whole answer, one prompt at a time: half of them were faster."""
    latency_p95: float
    """Seconds to a whole answer: all but one in twenty were faster."""
    cost_per_million_tokens: float | None = None
    """What a million generated tokens cost at this speed, by the price of the job's accelerators."""
    break_even_tokens: Annotated[int, Field(ge=0)] | None = None
    """Generated tokens after which training has paid off against the platform's API price; unset: never, or unknown."""
    currency: Annotated[str, StringConstraints(max_length=16)] | None = None
    """Of the cost."""
