"""What a training pod is asked for: one attempt of one run."""

from enum import StrEnum
from typing import Literal

from finetune_contract.base import Document, StoredReference
from finetune_contract.evaluating import EvaluationPlan
from finetune_contract.methods import DistillationPlan, DpoPlan, KtoPlan, Method, OnlinePlan, OrpoPlan, SimpoPlan
from finetune_contract.storage import StorePlan
from finetune_contract.tracking import TrackingPlan


class AdapterVariant(StrEnum):
    """What kind of low-rank adapter is trained."""

    LORA = "LoRA"
    QLORA = "QLoRA"
    """LoRA on a base that is held in 4 bits (nf4, double quantisation) while training."""
    DORA = "DoRA"
    """LoRA with a trained magnitude per output (Liu et al. 2024); its result is a merged model."""
    RSLORA = "rsLoRA"
    """LoRA scaled by alpha / sqrt(rank) (Kalajdzievski 2023)."""
    PISSA = "PiSSA"
    """LoRA that begins as the base's principal components (Meng et al. 2024); its result is a LoRA of rank 2r."""


class LoraPlan(Document):
    """A low-rank adapter, in peft's terms."""

    variant: AdapterVariant = AdapterVariant.LORA
    rank: int
    alpha: float
    dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class Hyperparameters(Document):
    """The optimiser's settings, in transformers' terms."""

    epochs: float
    learning_rate: float
    global_batch_size: int
    """Sequences (packs, when packing) per optimiser step over all ranks."""
    micro_batch_size: int | None = None
    """Sequences per forward pass; None: chosen by the trainer. Decides speed and memory, not the weights."""
    max_length: int | None = None
    """Tokens per sequence; None (Auto): from the data's p99, at most the model's context."""
    packing: bool = True
    warmup_steps: float = 0.0
    """A fraction of all steps when under 1, else a number of steps."""
    scheduler: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0


class CheckpointPlan(Document):
    """When training state is saved."""

    interval_minutes: float = 10.0
    interval_steps: int | None = None
    """Optimiser steps between checkpoints, beside the minutes: whichever comes first; None: minutes only."""
    keep: int = 2


class EarlyStoppingPlan(Document):
    """When training ends before its last step."""

    patience: int
    """Evaluations in a row without a better loss after which it ends."""
    min_delta: float = 0.0
    """By how much a loss must be lower to be better."""


class ValidationPlan(Document):
    """What is measured on the validation split while training goes on."""

    interval_steps: int | None = None
    """Optimiser steps between evaluations; None: ten evaluations in all, fewer where they would cost too much."""
    max_rows: int = 200
    """At most so many rows; 0: none, nothing is measured."""
    keep_best: bool = False
    """Whether the weights with the lowest loss are published instead of the last ones."""
    early_stopping: EarlyStoppingPlan | None = None
    """None: all steps are done."""


class ShardingStrategy(StrEnum):
    """How several ranks share one training."""

    AUTO = "Auto"
    """DDP for adapters, FSDP for full fine-tuning."""
    DDP = "DDP"
    """Every rank holds the whole model and all of its optimiser's state."""
    FSDP = "FSDP"
    """Weights, gradients and optimiser state are divided among the ranks (FSDP2)."""


class ParallelismPlan(Document):
    """The ranks of one attempt: processes that train together, each on its share of every global batch."""

    nodes: int = 1
    """Pods."""
    processes_per_node: int = 1
    """Ranks in each pod: one per GPU."""
    strategy: ShardingStrategy = ShardingStrategy.AUTO
    timeout_seconds: int = 600
    """How long a rank waits for the others before it gives up (NcclTimeout)."""

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.nodes * self.processes_per_node


class TrainingPlan(StorePlan):
    """Train one attempt of one run and publish its artifact."""

    version: Literal[1] = 1
    name: str
    namespace: str
    run_key: str
    attempt: int
    method: Method
    base: StoredReference
    dataset: StoredReference
    adapter: LoraPlan | None = None
    """None: full fine-tuning."""
    start: StoredReference | None = None
    """An adapter on `base` that an earlier job made: it is trained further, or merged where a whole model is made."""
    dpo: DpoPlan | None = None
    orpo: OrpoPlan | None = None
    simpo: SimpoPlan | None = None
    kto: KtoPlan | None = None
    online: OnlinePlan | None = None
    """Of GRPO and RLOO."""
    distillation: DistillationPlan | None = None
    hyperparameters: Hyperparameters
    parallelism: ParallelismPlan = ParallelismPlan()
    checkpoints: CheckpointPlan = CheckpointPlan()
    validation: ValidationPlan = ValidationPlan()
    evaluation: EvaluationPlan = EvaluationPlan()
    evaluation_key: str | None = None
    """Names what `evaluation` asks for; stands in the result."""
    predicted_peak_bytes: int | None = None
    """What a preflight said that a device would hold; only told again in the result."""
    tracking: TrackingPlan | None = None
    """Experiment trackers that are told how it goes; None: nobody."""
    truncated_share: float = 0.01
    """Share of tokens that may be cut at max_length before the run is refused."""


class ReevaluationPlan(Document):
    """Measure a published artifact anew: only what is asked of the evaluation has changed."""

    version: Literal[1] = 1
    training: TrainingPlan
    """How the artifact was trained, with the evaluation that is wanted now."""
    artifact: StoredReference
