"""FineTuneJob: base model, dataset and method; an evaluated artifact or a named failure in its status."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from finetune_contract.methods import Method
from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    Duration,
    FieldClass,
    Fraction,
    Metadata,
    Name,
    PrinterColumn,
    ResourceMeta,
    Resources,
    Token,
    rule,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource
from finetune_operator.api.evaluating import (
    METRIC_RULES,
    EvaluationSpec,
)
from finetune_operator.api.exporting import Exports
from finetune_operator.api.finetunejobstatus import FineTuneJobStatus
from finetune_operator.api.gate import GATE_RULES, Gate
from finetune_operator.api.methods import (
    METHOD_RULES,
    DistillationSettings,
    DpoSettings,
    GrpoSettings,
    KtoSettings,
    OrpoSettings,
    RlooSettings,
    SimpoSettings,
)
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.api.queueing import JobScheduling
from finetune_operator.api.storage import STORAGE_RULE, StorageSpec
from finetune_operator.api.tracking import TrackingSpec
from finetune_operator.api.training import (
    Adapter,
    CheckpointsSpec,
    HyperparametersSpec,
    ParallelismSpec,
    ValidationSpec,
)


class DatasetReference(ApiModel):
    """A Dataset of the same namespace."""

    name: Name
    """The Dataset's name; its revision is resolved once per run."""


class OnOutOfMemory(StrEnum):
    """What follows when the GPU's memory did not suffice."""

    FAIL = "Fail"
    SHRINK_MICRO_BATCH = "ShrinkMicroBatch"


class RetriesSpec(ApiModel):
    """How failures are met."""

    limit: Annotated[int, Field(ge=0, le=20)] = 2
    """New attempts after failures that may pass; evictions and lost nodes do not count."""
    on_out_of_memory: OnOutOfMemory = OnOutOfMemory.FAIL
    """ShrinkMicroBatch tries again with half the sequences per forward pass when the GPU's memory did not suffice.

    The global batch, and with it the result, stays the same.
    """


class LimitsSpec(ApiModel):
    """Where a run is stopped or refused."""

    truncated_share: Fraction = 0.01
    """Share of tokens that may be cut at maxLength; above it nothing is trained: the job is refused before a
    training pod where the Dataset counted with the same base (spec.tokenizer), else before the first step."""
    duration: Duration | None = None
    """How long the run's pods may run in all, for example `8h`; waiting, queues and pauses do not count.

    At the limit training stops with a checkpoint and the job fails with DeadlineExceeded; a higher limit goes on from
    there.
    """
    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """GPU-hours that the run may use over all attempts; at the limit it stops with a checkpoint, as with duration."""


class Preflight(StrEnum):
    """What follows from what a preflight found."""

    ENFORCE = "Enforce"
    WARN = "Warn"
    DISABLED = "Disabled"


class Reuse(StrEnum):
    """Whether an earlier result may be used."""

    ALWAYS = "Always"
    NEVER = "Never"


class FineTuneJobSpec(ApiModel):
    """What to tune, on what, and how."""

    model_config = ConfigDict(json_schema_extra=rules(*METHOD_RULES, *METRIC_RULES, *GATE_RULES, STORAGE_RULE))

    base_model: Annotated[BaseModelSource, FieldClass.INPUT]
    """Where the base model comes from: exactly one."""
    dataset: Annotated[DatasetReference, FieldClass.INPUT]
    """The Dataset to learn from."""
    method: Annotated[Method, FieldClass.TRAIN] = Method.SFT
    """SFT learns answers to prompts, CPT continues pre-training on text, DPO, KTO, ORPO and SimPO learn from
    preferences (the last two are experimental), Reward learns to score answers, GRPO and RLOO learn from rewards,
    Distillation from a teacher."""
    dpo: Annotated[DpoSettings | None, FieldClass.TRAIN] = None
    """Settings of method DPO."""
    orpo: Annotated[OrpoSettings | None, FieldClass.TRAIN] = None
    """Settings of method ORPO."""
    simpo: Annotated[SimpoSettings | None, FieldClass.TRAIN] = None
    """Settings of method SimPO."""
    kto: Annotated[KtoSettings | None, FieldClass.TRAIN] = None
    """Settings of method KTO."""
    grpo: Annotated[GrpoSettings | None, FieldClass.TRAIN] = None
    """Settings of method GRPO; its rewards are required."""
    rloo: Annotated[RlooSettings | None, FieldClass.TRAIN] = None
    """Settings of method RLOO; its rewards are required."""
    distillation: Annotated[DistillationSettings | None, FieldClass.TRAIN] = None
    """Settings of method Distillation; its teacher is required."""
    adapter: Annotated[Adapter, FieldClass.TRAIN] = Adapter()
    """What is trained: a LoRA adapter, or with type None every weight."""
    hyperparameters: HyperparametersSpec = HyperparametersSpec()
    """The optimiser's settings."""
    parallelism: Annotated[ParallelismSpec, FieldClass.OPERATIONAL] = ParallelismSpec()
    """How many processes train together; decides speed, not the result."""
    checkpoints: Annotated[CheckpointsSpec, FieldClass.OPERATIONAL] = CheckpointsSpec()
    """How often training state is saved, and how long a pod gets to save it when it is told to stop."""
    validation: ValidationSpec = ValidationSpec()
    """What is measured on validation rows while training goes on, and what follows from it."""
    evaluation: Annotated[EvaluationSpec, FieldClass.EVALUATE] = EvaluationSpec()
    """What is measured on held-out rows after training."""
    gate: Annotated[Gate | None, FieldClass.GATE] = None
    """What must have been measured before the artifact replaces the last one, and is served; unset: nothing.

    An edit decides anew from what was measured; nothing is trained for it.
    """
    exports: Annotated[Exports, FieldClass.EXPORT] = []
    """Other forms of the artifact, made on CPUs once the gate has let it through; one that fails fails nothing else."""
    retries: Annotated[RetriesSpec, FieldClass.OPERATIONAL] = RetriesSpec()
    """How often failures that may pass are tried again, each time from the newest checkpoint."""
    limits: Annotated[LimitsSpec, FieldClass.OPERATIONAL] = LimitsSpec()
    """Where a run is stopped or refused."""
    preflight: Annotated[Preflight | None, FieldClass.OPERATIONAL] = None
    """Before a GPU is asked for, a CPU pod checks data and settings and predicts memory, steps and hours. Enforce
    refuses what would fail, Warn only says so, Disabled does not look. Unset: Enforce where the memory of the GPU that
    is asked for is known, else Disabled."""
    tracking: Annotated[TrackingSpec | None, FieldClass.OPERATIONAL] = None
    """Experiment trackers that are told how training goes; unset: nobody is. One that is down never holds up a job."""
    resources: Annotated[Resources, FieldClass.OPERATIONAL] = Resources()
    """What the training pod asks for, such as `limits: {nvidia.com/gpu: 1}`; any resource name of the cluster."""
    scheduling: Annotated[JobScheduling, FieldClass.OPERATIONAL] = JobScheduling()
    """Where the training pod may run, and the queue that it waits in."""
    pod_template: Annotated[PodTemplate, FieldClass.OPERATIONAL] = PodTemplate()
    """What the job's pods get beside what the operator gives them."""
    storage: Annotated[StorageSpec | None, FieldClass.OPERATIONAL] = None
    """Where the base model, checkpoints and the result are kept; unset: where the operator's settings say."""
    suspend: Annotated[bool, FieldClass.OPERATIONAL] = False
    """True stops training with a checkpoint and frees the GPU; false goes on from there."""
    rerun: Annotated[Token | None, FieldClass.INPUT] = None
    """Any new word, such as a date: looks the inputs up again, and gives a failed run new attempts from its checkpoint.

    A run that has succeeded with the same inputs is not trained again, unless reuse is Never. Removing the word does
    nothing.
    """
    reuse: Annotated[Reuse, FieldClass.INPUT] = Reuse.ALWAYS
    """Always adopts the result of an equal run of this namespace; Never trains anew, once for each word in rerun."""
    ttl_after_finished: Annotated[Duration | None, FieldClass.OPERATIONAL] = None
    """How long finished Jobs and their pods (with their logs) are kept, for example `24h`; unset: with the job.

    What is stored, and this status, stay.
    """

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
            # A method's settings object in which nothing is set says no more than none at all.
            if document.get(alias, {}) != {}:
                fields[alias] = document[alias]
        elif isinstance(value, ApiModel) and not any(isinstance(mark, FieldClass) for mark in info.metadata):
            nested = _train_fields(value)
            if nested:
                fields[alias] = nested
    return fields


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
        PrinterColumn("Queue", ".spec.scheduling.queueName", wide=True),
        PrinterColumn("Position", ".status.queue.position", "integer", wide=True),
        PrinterColumn("Gate", ".status.gate.verdict", wide=True),
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
