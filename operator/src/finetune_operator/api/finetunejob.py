"""FineTuneJob: base model, dataset and method; an evaluated artifact or a named failure in its status."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.plans import Baseline, Method, Metric
from finetune_contract.results import ArtifactType
from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    BaseStatus,
    Digest,
    FieldClass,
    Fraction,
    JobFailure,
    Metadata,
    Name,
    PrinterColumn,
    ResourceMeta,
    Resources,
    ResourceStatus,
    Scheduling,
    Uri,
    Word,
    rule,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource


class DatasetReference(ApiModel):
    """A Dataset of the same namespace."""

    name: Name
    """The Dataset's name; its revision is resolved once per run."""


class AdapterType(StrEnum):
    """What is trained."""

    LORA = "LoRA"
    NONE = "None"


class Adapter(ApiModel):
    """What is trained: a low-rank adapter, or with type None every weight."""

    type: AdapterType = AdapterType.LORA
    """LoRA trains a small adapter beside the frozen base; None is full fine-tuning."""
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the adapter's matrices; more learns more and costs more memory."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 32
    """Scale of the adapter; usually twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input while training."""
    target_modules: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)
    ] = ["all-linear"]
    """Names of the layers that get an adapter; `all-linear` for every linear layer but the head."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.targetModules) || !('all-linear' in self.targetModules) || size(self.targetModules) == 1",
                "all-linear stands alone: it names every linear layer already",
            )
        )
    )


class Scheduler(StrEnum):
    """How the learning rate changes over the steps, by transformers' names."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"


MaxLength = Annotated[
    int | Literal["Auto"],
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            **rules(
                rule(
                    "type(self) == string ? self == 'Auto' : (self >= 8 && self <= 4194304)",
                    "maxLength is Auto or a number of tokens from 8 to 4194304",
                )
            ),
        }
    ),
]

DEFAULT_LEARNING_RATE = {AdapterType.LORA: 2e-4, AdapterType.NONE: 2e-5}
"""Adapters want about ten times the rate of full fine-tuning (Thinking Machines, "LoRA Without Regret")."""


class HyperparametersSpec(ApiModel):
    """The optimiser's settings, by transformers' names."""

    epochs: Annotated[float, Field(gt=0, le=1000), FieldClass.TRAIN] = 3
    """How often every row is seen."""
    learning_rate: Annotated[Annotated[float, Field(gt=0, le=1)] | None, FieldClass.TRAIN] = None
    """Peak learning rate; unset: 0.0002 for adapters, 0.00002 for full fine-tuning."""
    global_batch_size: Annotated[int, Field(ge=1, le=65536), FieldClass.TRAIN] = 16
    """Sequences per optimiser step over all GPUs."""
    micro_batch_size: Annotated[Annotated[int, Field(ge=1, le=4096)] | None, FieldClass.OPERATIONAL] = None
    """Sequences per forward pass; unset: chosen by the trainer. Decides memory and speed, not the result."""
    max_length: Annotated[MaxLength, FieldClass.TRAIN] = "Auto"
    """Tokens per sequence; Auto takes the data's 99th percentile, at most the model's context."""
    packing: Annotated[bool, FieldClass.TRAIN] = True
    """Put several short rows into one sequence, each seeing only itself; loses no token."""
    warmup_steps: Annotated[float, Field(ge=0, le=100_000), FieldClass.TRAIN] = 0.03
    """Steps of rising learning rate: a fraction of all when under 1, else a number."""
    scheduler: Annotated[Scheduler, FieldClass.TRAIN] = Scheduler.COSINE
    """How the learning rate falls."""
    weight_decay: Annotated[float, Field(ge=0, le=1), FieldClass.TRAIN] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000), FieldClass.TRAIN] = 1.0
    """Gradients longer than this are scaled down to it."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647), FieldClass.TRAIN] = 0
    """Seed of shuffling, dropout and new weights."""


class CheckpointsSpec(ApiModel):
    """When training state is saved."""

    interval_minutes: Annotated[float, Field(gt=0, le=1440)] = 10
    """Minutes between checkpoints; what a crash can lose at most."""
    keep: Annotated[int, Field(ge=1, le=10)] = 2
    """How many are kept."""
    grace_period_seconds: Annotated[int, Field(ge=5, le=3600)] = 120
    """Time a pod gets to finish its step and save when it is told to stop."""


class EvaluationSpec(ApiModel):
    """What is measured on held-out rows after training."""

    metrics: Annotated[list[Metric], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = [
        Metric.EVAL_LOSS
    ]
    """EvalLoss, or ExactMatch of greedy answers."""
    baselines: Annotated[list[Baseline], Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """What the tuned model is compared with: the base model as it is, or with examples in its prompt."""
    split: Literal["validation", "test"] = "test"
    """Which held-out rows are used."""
    max_rows: Annotated[int, Field(ge=1, le=10_000)] = 200
    """At most so many rows, chosen by seed."""
    few_shot_examples: Annotated[int, Field(ge=1, le=64)] = 4
    """Examples in the prompt of the FewShot baseline."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Length limit of an answer."""


class RetriesSpec(ApiModel):
    """How failures are met."""

    limit: Annotated[int, Field(ge=0, le=20)] = 2
    """New attempts after failures that may pass; evictions and lost nodes do not count."""


class LimitsSpec(ApiModel):
    """Where a run is refused."""

    truncated_share: Fraction = 0.01
    """Share of tokens that may be cut at maxLength; above it the run fails before its first step."""


class FineTuneJobSpec(ApiModel):
    """What to tune, on what, and how."""

    base_model: Annotated[BaseModelSource, FieldClass.INPUT]
    """Where the base model comes from: exactly one."""
    dataset: Annotated[DatasetReference, FieldClass.INPUT]
    """The Dataset to learn from."""
    method: Annotated[Method, FieldClass.TRAIN] = Method.SFT
    """SFT learns answers to prompts, CPT continues pre-training on text."""
    adapter: Annotated[Adapter, FieldClass.TRAIN] = Adapter()
    """What is trained: a LoRA adapter, or with type None every weight."""
    hyperparameters: HyperparametersSpec = HyperparametersSpec()
    """The optimiser's settings."""
    checkpoints: Annotated[CheckpointsSpec, FieldClass.OPERATIONAL] = CheckpointsSpec()
    """When training state is saved."""
    evaluation: Annotated[EvaluationSpec, FieldClass.EVALUATE] = EvaluationSpec()
    """What is measured on held-out rows after training."""
    retries: Annotated[RetriesSpec, FieldClass.OPERATIONAL] = RetriesSpec()
    """How failures are met."""
    limits: Annotated[LimitsSpec, FieldClass.OPERATIONAL] = LimitsSpec()
    """Where a run is refused."""
    resources: Annotated[Resources, FieldClass.OPERATIONAL] = Resources()
    """What the training pod asks for; any resource name."""
    scheduling: Annotated[Scheduling, FieldClass.OPERATIONAL] = Scheduling()
    """Where the training pod may run."""

    def train_fields(self) -> dict[str, Any]:
        """The Train fields that differ from their defaults, as JSON: what the run key hashes beside the inputs.

        Defaults are left out so that a new field with a default changes no key; for the same reason the default of a
        Train field never changes within v1alpha1 (a frozen sample of keys is a test).
        """
        return _train_fields(self)


def _train_fields(model: ApiModel) -> dict[str, Any]:
    document = model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    fields: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        alias = info.alias or name
        value = getattr(model, name)
        if FieldClass.TRAIN in info.metadata:
            if alias in document:
                fields[alias] = document[alias]
        elif isinstance(value, ApiModel) and not any(isinstance(mark, FieldClass) for mark in info.metadata):
            nested = _train_fields(value)
            if nested:
                fields[alias] = nested
    return fields


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
    inputs: ResolvedInputs
    """What the names in the spec stood for."""


class RunRecord(ApiModel):
    """How a run ended."""

    key: Word
    """The run."""
    outcome: Literal["Succeeded", "Failed"]
    """How it ended."""
    artifact_digest: Digest | None = None
    """What it made."""


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
    seconds: Annotated[int, Field(ge=0)] = 0
    """How long its pods ran."""
    step: Annotated[int, Field(ge=0)] = 0
    """Last finished step."""
    resumed_from_step: int | None = None
    """Step of the checkpoint it started from."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint when it ended."""


class ScoreStatus(ApiModel):
    """One metric of one system on the held-out rows."""

    metric: Word
    """What was measured."""
    system: Word
    """Tuned, or the baseline."""
    value: float
    """The result."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    rows: Annotated[int, Field(ge=0)] = 0
    """Rows that it was measured on."""


class TimingStatus(ApiModel):
    """Where the time went."""

    stage: Word
    """Loading, FirstStep, Training, Evaluating or Publishing."""
    seconds: float
    """Wall time."""


class ArtifactStatus(ApiModel):
    """What training made."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""
    type: ArtifactType
    """Adapter or Model."""
    bytes: Annotated[int, Field(ge=0)]
    """Size of its files."""
    base: BaseStatus
    """What it was trained from."""
    run: Word
    """The run that made it."""


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
    progress: ProgressStatus | None = None
    """How far training is."""
    attempts: Annotated[list[Attempt], Field(max_length=10)] = []
    """The run's last ten attempts that ended, newest last."""
    attempts_total: Annotated[int, Field(ge=0)] = 0
    """Attempts of the run that ended."""
    retries_used: Annotated[int, Field(ge=0)] = 0
    """Attempts that counted against retries.limit."""
    stalled_disruptions: Annotated[int, Field(ge=0)] = 0
    """Disruptions in a row without a newer checkpoint."""
    evaluation: Annotated[list[ScoreStatus], Field(max_length=40)] = []
    """What was measured on held-out rows."""
    timings: Annotated[list[TimingStatus], Field(max_length=8)] = []
    """Where the time of the last attempt went."""
    artifact: ArtifactStatus | None = None
    """The newest finished artifact; stays while a new run goes on."""


class FineTuneJob(ApiModel):
    """Tunes a base model on a Dataset and keeps the evaluated result."""

    metadata: Metadata
    spec: FineTuneJobSpec
    status: FineTuneJobStatus = FineTuneJobStatus()


META = ResourceMeta(
    kind="FineTuneJob",
    plural="finetunejobs",
    short_names=("ftj",),
    columns=(
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Progress", ".status.progressPercent"),
        PrinterColumn("Loss", ".status.progress.loss", "number"),
        COMMON_REASON,
        PrinterColumn("Method", ".spec.method", wide=True),
        PrinterColumn("Dataset", ".spec.dataset.name", wide=True),
        PrinterColumn("Artifact", ".status.artifact.digest", wide=True),
        COMMON_MESSAGE,
        COMMON_AGE,
    ),
)
ROOT_RULES = (
    NAME_RULE,
    rule(
        "!has(self.spec.baseModel.fineTuneJob) || self.spec.baseModel.fineTuneJob.name != self.metadata.name",
        "spec.baseModel.fineTuneJob.name: a job cannot tune its own result; name another FineTuneJob",
    ),
)
