"""FineTuneJob: base model, dataset and method; an evaluated artifact or a named failure in its status."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.evaluating import Baseline, Metric
from finetune_contract.methods import Method
from finetune_contract.training import ShardingStrategy
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
    EVALUATION_CONFIG,
    METRIC_RULES,
    BenchmarkSetting,
    JsonSchemaSetting,
    JudgeSetting,
    NamedBaselines,
    RegexSetting,
    RewardModelSetting,
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


class DatasetReference(ApiModel):
    """A Dataset of the same namespace."""

    name: Name
    """The Dataset's name; its revision is resolved once per run."""


class AdapterType(StrEnum):
    """What is trained."""

    LORA = "LoRA"
    QLORA = "QLoRA"
    DORA = "DoRA"
    RSLORA = "rsLoRA"
    PISSA = "PiSSA"
    NONE = "None"


class Adapter(ApiModel):
    """What is trained: a low-rank adapter, or with type None every weight."""

    type: AdapterType = AdapterType.LORA
    """LoRA trains a small adapter beside the frozen base, QLoRA the same with the base held in 4 bits; DoRA, rsLoRA and
    PiSSA are kinds of LoRA (DoRA's result is a merged model); None is full fine-tuning."""
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

_LEARNING_RATE = {Method.SFT: 2e-5, Method.CPT: 2e-5, Method.REWARD: 1e-5}
"""Of full fine-tuning."""

_CORRECTING_RATE = 1e-6
"""Of methods that correct a model which can do the task already; TRL's default for all of them."""


def default_learning_rate(method: Method, adapter: AdapterType) -> float:
    """Adapters want ten times the rate of full fine-tuning (Thinking Machines, "LoRA Without Regret")."""
    rate = _LEARNING_RATE.get(method, _CORRECTING_RATE)
    return rate if adapter is AdapterType.NONE else 10 * rate


class HyperparametersSpec(ApiModel):
    """The optimiser's settings, by transformers' names."""

    epochs: Annotated[float, Field(gt=0, le=1000), FieldClass.TRAIN] = 3
    """How often every row is seen."""
    learning_rate: Annotated[Annotated[float, Field(gt=0, le=1)] | None, FieldClass.TRAIN] = None
    """Peak learning rate; unset: 0.0002 for SFT and CPT, 0.0001 for Reward, 0.00001 for the other methods, and a tenth
    of that for full fine-tuning."""
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
    """How the learning rate changes after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=1), FieldClass.TRAIN] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000), FieldClass.TRAIN] = 1.0
    """Gradients longer than this are scaled down to it."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647), FieldClass.TRAIN] = 0
    """Seed of shuffling, dropout and new weights."""


class ParallelismSpec(ApiModel):
    """How many processes train together: one per GPU of each pod."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that train together, each with spec.resources; more than one needs storage that is ReadWriteMany."""
    strategy: ShardingStrategy = ShardingStrategy.AUTO
    """DDP copies the model to every GPU, FSDP divides it among them; Auto takes FSDP for full fine-tuning only."""
    timeout_seconds: Annotated[int, Field(ge=30, le=86_400)] = 600
    """How long a process waits for the others before the attempt fails as NcclTimeout."""


class CheckpointsSpec(ApiModel):
    """When training state is saved."""

    interval_minutes: Annotated[float, Field(gt=0, le=1440)] = 10
    """Minutes between checkpoints; what a crash can lose at most."""
    interval_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Optimiser steps between checkpoints, beside the minutes: whichever comes first. Unset: minutes only."""
    keep: Annotated[int, Field(ge=1, le=10)] = 2
    """How many of the newest checkpoints are kept."""
    grace_period_seconds: Annotated[int, Field(ge=5, le=3600)] = 120
    """Time a pod gets to finish its step and save when it is told to stop."""


class EarlyStopping(ApiModel):
    """When training ends before its last step, with the best weights so far."""

    patience: Annotated[int, Field(ge=1, le=1000)]
    """Looks at the validation rows in a row that find no lower loss, after which training ends."""
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """By how much a loss must be lower to count as lower."""


class ValidationSpec(ApiModel):
    """What is measured on the Dataset's validation rows while training goes on, and what follows from it."""

    interval_steps: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, FieldClass.TRAIN] = None
    """Optimiser steps between two looks; unset: ten looks in all, or fewer where they would cost too much."""
    max_rows: Annotated[int, Field(ge=0, le=10_000), FieldClass.TRAIN] = 200
    """At most so many rows, chosen by seed; 0 never looks."""
    keep_best: Annotated[bool, FieldClass.TRAIN] = False
    """Publish the weights with the lowest loss instead of the last ones."""
    early_stopping: Annotated[EarlyStopping | None, FieldClass.TRAIN] = None
    """End training when the loss no longer falls, and publish the best weights; unset: all steps are done."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!(has(self.maxRows) && self.maxRows == 0) || "
                "(!has(self.earlyStopping) && !(has(self.keepBest) && self.keepBest))",
                "keepBest and earlyStopping need validation rows: maxRows must not be 0",
            )
        )
    )


class EvaluationSpec(ApiModel):
    """What is measured on held-out rows after training."""

    metrics: Annotated[list[Metric], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = [
        Metric.EVAL_LOSS
    ]
    """What is measured. Of losses: EvalLoss, Perplexity; of greedy answers: ExactMatch, TokenF1, RougeL, RegexMatch,
    JSONSchemaValid, JudgeWinRate, RewardScore; of labels: Accuracy, MacroF1, CohenKappa; of pairs: PreferenceAccuracy;
    of rewards: MeanReward; and Benchmark, of lm-eval-harness tasks."""
    baselines: Annotated[list[Baseline], Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """What the tuned model is compared with: the base model as it is (ZeroShot) or with examples in its prompt
    (FewShot) or with the instruction that the Dataset cut off (OriginalPrompt), and the job's artifact before this one
    (Previous), if there is one."""
    named_baselines: NamedBaselines = []
    """Other models to compare with: what another FineTuneJob made, or a model that somebody serves."""
    split: Literal["validation", "test"] = "test"
    """Which held-out rows are used."""
    max_rows: Annotated[int, Field(ge=1, le=10_000)] = 200
    """At most so many rows, chosen by seed."""
    few_shot_examples: Annotated[int, Field(ge=1, le=64)] = 4
    """Examples in the prompt of the FewShot baseline."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Length limit of an answer."""
    regex: RegexSetting | None = None
    """What RegexMatch looks for."""
    json_schema: JsonSchemaSetting | None = None
    """What JSONSchemaValid checks against."""
    judge: JudgeSetting | None = None
    """Who decides JudgeWinRate."""
    reward_model: RewardModelSetting | None = None
    """Who gives RewardScore."""
    benchmark: BenchmarkSetting | None = None
    """The tasks of Benchmark."""

    model_config = EVALUATION_CONFIG


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
