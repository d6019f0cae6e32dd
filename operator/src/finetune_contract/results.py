"""What pods say: progress while they run, one result in the termination message when they end."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import model_validator

from finetune_contract.base import Document, Sha256
from finetune_contract.failure import Failure
from finetune_contract.plans import Baseline, Metric, RowFormat, StoredReference

TUNED = "Tuned"
"""The name of the tuned model among an evaluation's systems; the others are Baseline's values."""


class DropReason(StrEnum):
    """Why a dataset row is not in the revision."""

    EXACT_DUPLICATE = "ExactDuplicate"
    NEAR_DUPLICATE = "NearDuplicate"
    BAD_ROW = "BadRow"
    EMPTY = "Empty"


class Dropped(Document):
    """Rows that were left out, by reason."""

    reason: DropReason
    rows: int


class Split(Document):
    """One part of a dataset revision."""

    name: str
    rows: int


class DatasetResult(Document):
    """What a dataset pod leaves."""

    revision: StoredReference | None = None
    format: RowFormat | None = None
    rows_read: int = 0
    rows_kept: int = 0
    dropped: tuple[Dropped, ...] = ()
    splits: tuple[Split, ...] = ()
    failure: Failure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure is None) == (self.revision is None):
            raise ValueError("a result has either a failure or a revision")
        return self


class ArtifactType(StrEnum):
    """What training made."""

    ADAPTER = "Adapter"
    MODEL = "Model"


class Artifact(Document):
    """A published result of training."""

    digest: Sha256
    uri: str
    type: ArtifactType
    bytes: int
    base: StoredReference
    """The base model the artifact was trained from; an adapter is served on exactly this."""


class Score(Document):
    """One metric of one system on the held-out rows."""

    metric: Metric
    system: str
    """`Tuned` or a Baseline's value."""
    value: float
    low: float | None = None
    """Lower end of the 95 % bootstrap interval."""
    high: float | None = None
    rows: int


class Timing(Document):
    """Seconds of wall time that one stage took."""

    stage: str
    """Loading, FirstStep, Training, Evaluating or Publishing."""
    seconds: float


class TrainingResult(Document):
    """What a training pod leaves; also, without a failure, the run's `outcome.json` in the store."""

    run_key: str
    attempt: int
    artifact: Artifact | None = None
    step: int = 0
    """Last finished optimiser step."""
    total_steps: int = 0
    resumed_from_step: int | None = None
    checkpoint_step: int | None = None
    """Step of the newest checkpoint in the store, from any attempt."""
    train_loss: float | None = None
    supervised_tokens: int = 0
    truncated_tokens: int = 0
    truncated_rows: int = 0
    evaluation: tuple[Score, ...] = ()
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
    revision: str | None = None
    """The commit of a Hub model."""
    run_key: str | None = None
    outcome: TrainingResult | None = None
    """The run's earlier success, if there is one."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure is None) == (self.base is None):
            raise ValueError("a result has either a failure or a base")
        return self


class Phase(StrEnum):
    """What a training pod is doing."""

    LOADING = "Loading"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    PUBLISHING = "Publishing"


class Progress(Document):
    """What `/progress` answers while a training pod runs."""

    run_key: str
    attempt: int
    phase: Phase
    step: int = 0
    total_steps: int = 0
    percent: int = 0
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    resumed_from_step: int | None = None
    checkpoint_step: int | None = None
    estimated_completion_time: datetime | None = None
    updated_at: datetime


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


SYSTEMS: tuple[str, ...] = (TUNED, *(baseline.value for baseline in Baseline))
"""Every system an evaluation may name, tuned first."""
