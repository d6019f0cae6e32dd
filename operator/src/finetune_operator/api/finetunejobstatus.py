"""What becomes of a FineTuneJob: its status."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from finetune_contract.results import ArtifactType
from finetune_operator.api.adapterfacts import AdapterFactsStatus
from finetune_operator.api.base import ApiModel, BaseStatus, Digest, JobFailure, ResourceStatus, Token, Uri, Word
from finetune_operator.api.exporting import MOST_EXPORTS, ExportStatus
from finetune_operator.api.figures import (
    CostStatus,
    FigureStatus,
    PreflightStatus,
    ScoreStatus,
    SpeedStatus,
    TimingStatus,
)
from finetune_operator.api.gate import GateStatus, Verdict
from finetune_operator.api.queueing import QueueStatus
from finetune_operator.api.tracking import TrackedRunStatus


class OtherInput(ApiModel):
    """An artifact of another job that a run learns from."""

    part: Word
    """Its part in the run: adapter, reward-0 and so on by place in the list, teacher or teacher-adapter."""
    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""


class ResolvedInputs(ApiModel):
    """What the names in the spec stood for when the run began."""

    dataset: Digest
    """Digest of the dataset revision."""
    dataset_uri: Uri
    """Where it is stored."""
    base: Digest
    """Digest of the base model's files, or of the artifact it is."""
    base_uri: Uri
    """Where it is stored."""
    base_revision: Word | None = None
    """The commit of a Hub model."""
    others: Annotated[list[OtherInput], Field(max_length=16)] = []
    """Artifacts of other jobs that decide the weights, too: an adapter to go on from, reward models, a teacher."""


class ArtifactStatus(ApiModel):
    """What training made."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""
    type: ArtifactType
    """Adapter, Model, or RewardModel, which scores answers and is served by nobody."""
    bytes: Annotated[int, Field(ge=0)]
    """Size of its files."""
    base: BaseStatus
    """What it was trained from."""
    adapter: AdapterFactsStatus | None = None
    """What engines must know of an adapter."""
    run: Word
    """The run that made it."""
    verdict: Verdict | None = None
    """What the gate decided about it last: Passed, Failed or Undecided; unset: there was no gate."""


class MeasuringInput(ApiModel):
    """An artifact of another job that the evaluation uses."""

    part: Word
    """Its part: reward-model, or the name of a baseline."""
    job: Word
    """The job that made it."""
    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""
    base: BaseStatus | None = None
    """What an adapter is for; unset: it is a whole model."""


class Run(ApiModel):
    """The run that the spec asks for."""

    key: Word
    """Identifies it: equal keys give the same weights and are trained once."""
    number: Annotated[int, Field(ge=1)]
    """Counts this job's runs."""
    stage: Word
    """Names the spec and inputs that were resolved; another one resolves again."""
    generation: Annotated[int, Field(ge=0)] = 0
    """The spec's generation when the run began or was reopened."""
    started_at: datetime
    """When it began."""
    rerun: Token | None = None
    """The word in spec.rerun that its inputs were looked up for."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """The attempt that was started last."""
    inputs: ResolvedInputs
    """What the names in the spec stood for."""
    previous: ArtifactStatus | None = None
    """What the run before it made that passed its gate: the baseline Previous."""
    measuring: Annotated[list[MeasuringInput], Field(max_length=8)] = []
    """Artifacts of other jobs that the evaluation uses, as they were when it was first asked for."""


class RunRecord(ApiModel):
    """How a run ended."""

    key: Word
    """The run."""
    outcome: Literal["Succeeded", "Failed", "Cancelled"]
    """How it ended; Cancelled when an edit asked for another run before its end."""
    artifact_digest: Digest | None = None
    """What it made."""
    artifact: ArtifactStatus | None = None
    """What it made, whether its gate passed or not; unset in what an older release wrote."""
    gpu_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds of accelerators that its attempts used in all."""


class ProgressStatus(ApiModel):
    """How far training is."""

    phase: Word | None = None
    """Loading, Training, Evaluating or Publishing."""
    step: Annotated[int, Field(ge=0)] = 0
    """Finished optimiser steps."""
    total_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps in all."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Finished share."""
    loss: float | None = None
    """Training loss."""
    eval_loss: float | None = None
    """Loss on held-out rows."""
    figures: Annotated[list[FigureStatus], Field(max_length=8)] = []
    """What the method is judged by beside its loss, by TRL's names, such as rewards/margins."""
    tokens_per_second: float | None = None
    """Trained tokens per second, padding not counted."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint."""
    resumed_from_step: int | None = None
    """Step of the checkpoint that this attempt started from."""
    estimated_completion_time: datetime | None = None
    """When training will end at this speed."""
    updated_at: datetime | None = None
    """When the trainer said so."""

    def at_rest(self) -> Self:
        """How far it came still stands; what it was doing is over."""
        return self.model_copy(update={"phase": None, "tokens_per_second": None, "estimated_completion_time": None})


class Attempt(ApiModel):
    """One try of a run: one Job."""

    number: Annotated[int, Field(ge=1)]
    """Counts the run's attempts."""
    run: Word
    """First characters of the run's key."""
    reason: Word
    """Succeeded, or why it failed."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """What happened."""
    node: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Where it ran."""
    finished_at: datetime | None = None
    """When it ended."""
    seconds: Annotated[int, Field(ge=0)] = 0
    """How long its pods ran."""
    preemptions: Annotated[int, Field(ge=1)] | None = None
    """How often it lost its quota, was queued again and resumed."""
    gpu_seconds: Annotated[int, Field(ge=0)] = 0
    """Seconds of accelerators that it used."""
    micro_batch_size: int | None = None
    """Sequences per forward pass, where it mattered."""
    peak_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """The most that one device held, or, without a GPU, the training process."""
    step: Annotated[int, Field(ge=0)] = 0
    """Last finished step."""
    resumed_from_step: int | None = None
    """Step of the checkpoint it started from."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint when it ended."""


class FineTuneJobStatus(ResourceStatus):
    """What became of the run."""

    progress_percent: Annotated[str, StringConstraints(max_length=8)] | None = None
    """Finished share of the steps, for people's eyes."""
    run: Run | None = None
    """The run that the spec asks for."""
    stage_failure: JobFailure | None = None
    """Why the base model could not be staged."""
    runs: Annotated[list[RunRecord], Field(max_length=10)] = []
    """How the last ten runs ended, newest last."""
    preflight: PreflightStatus | None = None
    """What was found out before a GPU was asked for."""
    progress: ProgressStatus | None = None
    """How far training is."""
    tracking: Annotated[list[TrackedRunStatus], Field(max_length=2)] = []
    """The run as the trackers of spec.tracking know it."""
    attempts: Annotated[list[Attempt], Field(max_length=10)] = []
    """The run's last ten attempts that ended, newest last."""
    queue: QueueStatus | None = None
    """The present attempt's place in its Kueue queue."""
    attempts_total: Annotated[int, Field(ge=0)] = 0
    """Attempts of the run that ended."""
    retries_used: Annotated[int, Field(ge=0)] = 0
    """Attempts that counted against retries.limit."""
    stalled_disruptions: Annotated[int, Field(ge=0)] = 0
    """Disruptions in a row without a newer checkpoint."""
    seconds_total: Annotated[int, Field(ge=0)] = 0
    """How long the pods of the run's attempts ran in all."""
    gpu_seconds_total: Annotated[int, Field(ge=0)] = 0
    """Seconds of accelerators that the run's attempts used in all."""
    cost: CostStatus | None = None
    """What that has cost, where accelerators were used."""
    evaluation: Annotated[list[ScoreStatus], Field(max_length=40)] = []
    """What was measured on held-out rows."""
    evaluation_key: Word | None = None
    """Names the spec.evaluation that it was measured for."""
    evaluation_failure: JobFailure | None = None
    """Why it could not be measured anew."""
    speed: SpeedStatus | None = None
    """How fast the tuned model answered when it was measured."""
    timings: Annotated[list[TimingStatus], Field(max_length=8)] = []
    """Where the time of the last attempt went."""
    exports: Annotated[list[ExportStatus], Field(max_length=MOST_EXPORTS)] = []
    """What became of spec.exports."""
    gate: GateStatus | None = None
    """What the gate decided, rule by rule."""
    artifact: ArtifactStatus | None = None
    """The newest artifact that has passed the gate, or was made without one; stays while a new run goes on, and if what
    that makes does not pass."""
