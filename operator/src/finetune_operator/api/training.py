"""How weights are changed: adapter, optimiser, processes, checkpoints, and what is measured on the way."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.methods import Method
from finetune_contract.training import ShardingStrategy
from finetune_operator.api.base import (
    ApiModel,
    FieldClass,
    rule,
    rules,
)


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
    """Pods that train together, each with spec.resources; several need storage in S3 or on a ReadWriteMany claim."""
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
