"""What the operator asks pods to do: one plan per kind of pod, mounted as `plan.json` from an immutable ConfigMap.

A plan is complete: with the store mounted, a pod needs nothing else but secrets, which come as environment variables.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from finetune_contract.base import Address, Document, Sha256


class StoredReference(Document):
    """A directory of the store, by content."""

    digest: Sha256
    uri: Address
    """`pvc://<claim>/<path>`; in a pod the claim is mounted at `/store`."""


class RowFormat(StrEnum):
    """The shape of a dataset's normalised rows (the columns of its Parquet files)."""

    MESSAGES = "Messages"
    """`messages`: a list of {role, content}."""
    PROMPT_COMPLETION = "PromptCompletion"
    """`prompt` and `completion`, both strings, taken as they are: no chat template."""
    TEXT = "Text"
    """`text`, for continued pre-training."""
    CLASSIFICATION = "Classification"
    """`text` and `label`; prompted through the chat template where the tokenizer has one."""
    PREFERENCE = "Preference"
    """`prompt` (a string, or the turns before the answer), `chosen` and `rejected`, both strings."""
    UNPAIRED_PREFERENCE = "UnpairedPreference"
    """`prompt` (a string, or turns), `completion`, and `label`: whether the completion is a good one."""
    PROMPTS = "Prompts"
    """`prompt` (a string, or turns), and perhaps `answer`: what a reward compares with."""


# --- Dataset -------------------------------------------------------------------------------------------------------


class HttpSource(Document):
    """Files to download."""

    urls: tuple[str, ...]
    sha256: tuple[str, ...] = ()
    """One hexadecimal checksum per URL, or none at all."""


class DatasetSource(Document):
    """Where rows come from: exactly one is set."""

    inline: str | None = None
    """JSON lines in the plan itself."""
    http: HttpSource | None = None
    files: str | None = None
    """A glob under the source mount (a claim or a ConfigMap), relative."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.inline, self.http, self.files)) != 1:
            raise ValueError("exactly one of inline, http, files must be set")
        return self


class SplitPlan(Document):
    """How rows are divided; near-duplicates stay on one side."""

    validation: float = 0.0
    """Fraction of the kept rows."""
    test: float = 0.0
    seed: int = 0


class DatasetPlan(Document):
    """Read, normalise, clean, split and publish one dataset revision."""

    version: Literal[1] = 1
    name: str
    namespace: str
    source: DatasetSource
    format: RowFormat | None = None
    """None: detected from the first row."""
    columns: dict[str, str] = {}
    """Our column name -> the source's."""
    exact_duplicates: bool = True
    """Whether exact duplicates are removed."""
    near_duplicate_similarity: float | None = None
    """Jaccard similarity of word shingles from which a row counts as a near-duplicate and is removed."""
    max_bad_rows: int = 0
    split: SplitPlan = SplitPlan()
    license: str | None = None
    """SPDX identifier, kept in the lineage."""
    claim: str
    """Name of the claim that is mounted at `/store`."""


# --- Stage ---------------------------------------------------------------------------------------------------------


class HubModel(Document):
    """A model of the Hugging Face Hub."""

    repo: str
    revision: str = "main"


class S3Model(Document):
    """A model under an S3 prefix; credentials come as AWS_* environment variables."""

    uri: str
    endpoint: str | None = None
    region: str | None = None


class BaseSource(Document):
    """Where a base model comes from: exactly one is set."""

    hub: HubModel | None = None
    s3: S3Model | None = None
    volume: str | None = None
    """A directory under the source mount, relative (`.` for the mount itself)."""
    stored: StoredReference | None = None
    """A directory that is in the store already: another job's artifact."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.hub, self.s3, self.volume, self.stored)) != 1:
            raise ValueError("exactly one of hub, s3, volume, stored must be set")
        return self


class RunIngredients(Document):
    """What makes a run key beside the base's digest."""

    train_fields: dict[str, Any]
    dataset: Sha256
    inputs: dict[str, StoredReference] = {}
    """What else decides the weights, by its part in the run (`adapter`, `reward-0`, `teacher`): stored artifacts."""


class StagePlan(Document):
    """Bring a base model into the store once; say which run this is and whether it has succeeded before."""

    version: Literal[1] = 1
    name: str
    namespace: str
    source: BaseSource
    run: RunIngredients | None = None
    """None for a ModelDeployment, which has no run."""
    claim: str


class ResolvePlan(Document):
    """Look up in the store what became of a run whose attempt nobody saw end."""

    version: Literal[1] = 1
    name: str
    namespace: str
    run_key: str
    claim: str


# --- Training ------------------------------------------------------------------------------------------------------


class Method(StrEnum):
    """How the model is tuned."""

    SFT = "SFT"
    """Supervised fine-tuning on prompts and completions; the loss is on completions only."""
    CPT = "CPT"
    """Continued pre-training on text; the loss is on every token."""
    DPO = "DPO"
    """Direct preference optimisation on chosen and rejected answers."""
    ORPO = "ORPO"
    """Odds-ratio preference optimisation, without a reference model; experimental in TRL."""
    SIMPO = "SimPO"
    """Preference optimisation by mean log-probability, without a reference model; experimental in TRL."""
    KTO = "KTO"
    """Preference optimisation on answers that are marked good or bad, unpaired."""
    REWARD = "Reward"
    """A model that scores answers, learnt from chosen and rejected ones."""
    GRPO = "GRPO"
    """Reinforcement learning: answers to a prompt are judged relative to each other."""
    RLOO = "RLOO"
    """Reinforcement learning: each answer is judged against the mean of the others."""
    DISTILLATION = "Distillation"
    """The model answers prompts itself and learns a teacher's probabilities of each token."""


ANSWERING_METHODS = (Method.GRPO, Method.RLOO, Method.DISTILLATION)
"""Methods in which the model answers prompts while it is trained."""

PAIR_METHODS = (Method.DPO, Method.ORPO, Method.SIMPO, Method.REWARD)
"""Methods that learn from a chosen and a rejected answer to one prompt."""

_ANSWERED = (RowFormat.MESSAGES, RowFormat.PROMPT_COMPLETION, RowFormat.CLASSIFICATION)

METHOD_FORMATS: dict[Method, tuple[RowFormat, ...]] = {
    Method.SFT: _ANSWERED,
    Method.CPT: (RowFormat.TEXT,),
    **dict.fromkeys(PAIR_METHODS, (RowFormat.PREFERENCE,)),
    Method.KTO: (RowFormat.UNPAIRED_PREFERENCE, RowFormat.PREFERENCE),
    # The last answer of an answered row is what a reward compares with.
    **dict.fromkeys(ANSWERING_METHODS, (RowFormat.PROMPTS, *_ANSWERED)),
}
"""Which rows a method can learn from."""


def unfit_rows(method: Method, row_format: RowFormat) -> str | None:
    """Why a method cannot learn from rows of a format, and what to do; None when it can."""
    if row_format in METHOD_FORMATS[method]:
        return None
    wanted = " or ".join(METHOD_FORMATS[method])
    others = [other.value for other, formats in METHOD_FORMATS.items() if row_format in formats]
    return (
        f"spec.method: {method} needs {wanted} rows; the dataset has {row_format} rows: "
        f"use method {' or '.join(others)}, or a dataset with {wanted} rows"
    )


def one_process_only(method: Method) -> str | None:
    """Why several processes cannot train by a method; None where they can."""
    if method in (Method.SFT, Method.CPT):
        return None
    return f"spec.parallelism: {method} trains in one process; ask for one node and at most one GPU"


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


class DpoPlan(Document):
    """DPO's settings, in TRL's terms."""

    beta: float = 0.1
    loss: str = "sigmoid"
    label_smoothing: float = 0.0


class OrpoPlan(Document):
    """ORPO's settings."""

    beta: float = 0.1


class SimpoPlan(Document):
    """SimPO's settings."""

    beta: float = 2.0
    gamma: float = 1.0


class KtoPlan(Document):
    """KTO's settings."""

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


class RewardFunction(StrEnum):
    """Declared rewards: 1 for an answer that passes, else 0."""

    EXACT_MATCH = "ExactMatch"
    """The answer equals the row's `answer`, white space around both trimmed."""
    REGEX = "Regex"
    """The answer holds a match of a pattern."""
    JSON_SCHEMA = "JSONSchema"
    """The answer is JSON that a schema accepts."""
    LENGTH = "Length"
    """The answer has between so many tokens."""


class RewardPlan(Document):
    """One source of reward and its weight in the sum."""

    weight: float = 1.0
    model: StoredReference | None = None
    """A model that a Reward job made."""
    function: RewardFunction | None = None
    pattern: str | None = None
    """Of Regex."""
    json_schema: str | None = None
    """Of JSONSchema, as JSON text."""
    min_tokens: int = 0
    """Of Length."""
    max_tokens: int | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.model is None) == (self.function is None):
            raise ValueError("exactly one of model, function must be set")
        return self


class OnlinePlan(Document):
    """GRPO's and RLOO's settings."""

    rewards: tuple[RewardPlan, ...]
    generations: int = 8
    """Answers per prompt that are compared with each other."""
    beta: float = 0.0
    """Weight of the KL divergence from the model before training."""
    temperature: float = 1.0
    max_completion_length: int = 256
    """Tokens of an answer; longer ones are cut and counted."""


class DistillationPlan(Document):
    """Distillation's settings."""

    teacher: StoredReference
    teacher_adapter: StoredReference | None = None
    temperature: float = 1.0
    beta: float = 1.0
    """0: forward KL, 1: reverse KL, between: generalised Jensen-Shannon divergence."""
    max_completion_length: int = 256


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


class Metric(StrEnum):
    """What is measured on the held-out split."""

    EVAL_LOSS = "EvalLoss"
    """Mean loss per supervised token; lower is better."""
    EXACT_MATCH = "ExactMatch"
    """Share of greedy answers equal to the reference after trimming white space."""
    PREFERENCE_ACCURACY = "PreferenceAccuracy"
    """Share of pairs whose chosen answer is scored above the rejected one."""
    MEAN_REWARD = "MeanReward"
    """Mean reward of greedy answers, by the rewards that GRPO or RLOO train on."""


class Baseline(StrEnum):
    """What the tuned model is compared with."""

    ZERO_SHOT = "ZeroShot"
    FEW_SHOT = "FewShot"


class EvaluationPlan(Document):
    """What is measured after training, on `split` rows."""

    metrics: tuple[Metric, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    split: Literal["validation", "test"] = "test"
    max_rows: int = 200
    few_shot_examples: int = 4
    max_new_tokens: int = 64


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


class TrainingPlan(Document):
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
    truncated_share: float = 0.01
    """Share of tokens that may be cut at max_length before the run is refused."""
    claim: str


class ReevaluationPlan(Document):
    """Measure a published artifact anew: only what is asked of the evaluation has changed."""

    version: Literal[1] = 1
    training: TrainingPlan
    """How the artifact was trained, with the evaluation that is wanted now."""
    artifact: StoredReference


# --- Serving -------------------------------------------------------------------------------------------------------


class ServedAdapter(Document):
    """One adapter of a serving pod."""

    name: Annotated[str, Field(min_length=1)]
    """The model name that clients ask for."""
    artifact: StoredReference


class ServingPlan(Document):
    """What a serving pod serves, and has to prove.

    The init container verifies `base` in the store and copies each adapter to `/adapters/<name>/<digest hex>`.
    """

    version: Literal[1] = 1
    name: str
    """The ModelDeployment's name: the base model's own model name, beside the aliases `tgi` and `dummy`."""
    namespace: str
    base: StoredReference
    adapters: tuple[ServedAdapter, ...] = ()
    max_batch_size: int = 16
    max_queue: int = 128
    max_total_tokens: int | None = None
    """Prompt and answer together; None: the model's context."""
    request_timeout_seconds: float = 120.0
    claim: str
