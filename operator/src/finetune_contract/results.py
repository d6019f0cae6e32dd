"""What pods say: progress while they run, one result in the termination message when they end.

Bounds of words and numbers are those of the custom resources' status: what parses here can be written there.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.base import Address, Count, Document, Label, Sha256, StoredReference
from finetune_contract.evaluating import Score, Speed
from finetune_contract.failure import Failure
from finetune_contract.tracking import TrackedRun


class ArtifactType(StrEnum):
    """What training made."""

    ADAPTER = "Adapter"
    MODEL = "Model"
    REWARD_MODEL = "RewardModel"
    """Scores answers and writes none: GRPO and RLOO learn from it, nobody serves it."""


class Artifact(Document):
    """A published result of training."""

    digest: Sha256
    uri: Address
    type: ArtifactType
    bytes: Count
    base: StoredReference
    """The base model the artifact was trained from; an adapter is served on exactly this."""
    adapter: AdapterFacts | None = None
    """Of an adapter: what engines ask before they load it."""


class Timing(Document):
    """Seconds of wall time that one stage took."""

    stage: Label
    """Loading, FirstStep, Training, Evaluating or Publishing."""
    seconds: float


class WarningReason(StrEnum):
    """What a run that goes on, or has succeeded, should be looked at for."""

    OVERFITTING = "Overfitting"
    """The loss on the validation rows rises while that on the training rows falls."""
    NO_REWARD_VARIANCE = "NoRewardVariance"
    """All answers to a prompt get the same reward, so none is better than another."""
    BEST_CHECKPOINT_LOST = "BestCheckpointLost"
    """The best step's checkpoint is damaged; the next best that verifies was published."""
    TRACKING_INCOMPLETE = "TrackingIncomplete"
    """An experiment tracker does not take the run's metrics; training goes on without it."""


class RunWarning(Document):
    """Something about a run that people should look at; it does not fail for it."""

    reason: WarningReason
    message: Annotated[str, Field(max_length=256)]
    """What was seen, with its numbers and what can be done."""


class TrainingResult(Document):
    """What a training pod leaves; also, without a failure, the run's `outcome.json` in the store."""

    run_key: Label
    attempt: Count
    artifact: Artifact | None = None
    step: Count = 0
    """Last finished optimiser step."""
    total_steps: Count = 0
    resumed_from_step: Count | None = None
    checkpoint_step: Count | None = None
    """Step of the newest checkpoint in the store, from any attempt."""
    train_loss: float | None = None
    tokens: Count = 0
    """Tokens that are trained on, per epoch."""
    supervised_tokens: Count = 0
    """Those of them that the loss is on."""
    truncated_tokens: Count = 0
    truncated_rows: Count = 0
    """Rows that were cut, those that were left out among them."""
    dropped_rows: Count = 0
    """Rows that were left out: nothing to learn from was left of them."""
    best_step: Count | None = None
    """Step whose weights were published, where `keepBest` or `earlyStopping` asked for the best."""
    best_eval_loss: float | None = None
    """Lowest loss on the validation rows."""
    tokens_per_second: float | None = None
    """Tokens trained on per second of the training loop, padding not counted; of this attempt."""
    mfu: float | None = None
    """Model FLOPs utilisation of this attempt: share of the device's peak; None where the peak is not known."""
    micro_batch_size: Count | None = None
    """Sequences per forward pass, per rank; also of an attempt that ran out of memory."""
    peak_memory_bytes: Count | None = None
    """The most this process held: of the GPU's memory where there is one, else resident memory."""
    predicted_peak_bytes: Count | None = None
    """What the preflight predicted for it; None where there was none."""
    warnings: Annotated[tuple[RunWarning, ...], Field(max_length=4)] = ()
    tracking: Annotated[tuple[TrackedRun, ...], Field(max_length=2)] = ()
    """The run as the plan's experiment trackers know it."""
    evaluation: tuple[Score, ...] = ()
    evaluation_key: Label | None = None
    """What the plan named the evaluation."""
    speed: Speed | None = None
    """How fast the tuned model answers; None where the evaluation needed no answers."""
    timings: tuple[Timing, ...] = ()
    reused: bool = False
    """The run had succeeded before: nothing was trained now."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure is None) == (self.artifact is None):
            raise ValueError("a result has either a failure or an artifact")
        return self


class StageResult(Document):
    """What a stage pod leaves."""

    base: StoredReference | None = None
    revision: Label | None = None
    """The commit of a Hub model."""
    run_key: Label | None = None
    outcome: TrainingResult | None = None
    """The run's earlier success, if there is one."""
    adapters: Annotated[tuple[AdapterFacts, ...], Field(max_length=32)] = ()
    """What the files of the plan's adapters say, in their order."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure is None) == (self.base is None):
            raise ValueError("a result has either a failure or a base")
        if self.outcome is not None and self.outcome.failure is not None:
            raise ValueError("only a success is an outcome")
        return self


class ResolveResult(Document):
    """What a resolve pod leaves."""

    outcome: TrainingResult | None = None
    """The run's success, if it has succeeded."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _only_a_success(self) -> Self:
        if self.outcome is not None and self.outcome.failure is not None:
            raise ValueError("only a success is an outcome")
        return self


class Phase(StrEnum):
    """What a training pod is doing."""

    LOADING = "Loading"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    PUBLISHING = "Publishing"


class Progress(Document):
    """What `/progress` answers while a training pod runs."""

    run_key: Label
    attempt: Count
    phase: Phase
    step: Count = 0
    total_steps: Count = 0
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    figures: Annotated[dict[Label, float], Field(max_length=8)] = {}
    """What a method is judged by beside its loss, such as `rewards/margins` or `kl`, by TRL's names."""
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    """Model FLOPs utilisation: share of the device's peak; None where the peak is not known."""
    micro_batch_size: Count | None = None
    peak_memory_bytes: Count | None = None
    warnings: Annotated[tuple[RunWarning, ...], Field(max_length=4)] = ()
    tracking: Annotated[tuple[TrackedRun, ...], Field(max_length=2)] = ()
    """The run as the plan's experiment trackers know it."""
    resumed_from_step: Count | None = None
    checkpoint_step: Count | None = None
    estimated_completion_time: AwareDatetime | None = None
    updated_at: AwareDatetime


class ProbePrompt(Document):
    """One prompt of an adapter's proof: what base and tuned model answer greedily, token by token."""

    prompt: str
    """Already rendered: sent to `/v1/completions` as it is."""
    tuned_text: str
    tuned_logprobs: tuple[float, ...]
    """Log-probability of each token of the tuned model's greedy answer, under the tuned model."""
    base_text: str
    base_logprobs: tuple[float, ...]


class Probe(Document):
    """`probe.json` beside an adapter: how to tell that it is really served."""

    prompts: tuple[ProbePrompt, ...]
