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


class StagePlan(Document):
    """Bring a base model into the store once; say which run this is and whether it has succeeded before."""

    version: Literal[1] = 1
    name: str
    namespace: str
    source: BaseSource
    run: RunIngredients | None = None
    """None for a ModelDeployment, which has no run."""
    claim: str


# --- Training ------------------------------------------------------------------------------------------------------


class Method(StrEnum):
    """How the model is tuned."""

    SFT = "SFT"
    """Supervised fine-tuning on prompts and completions; the loss is on completions only."""
    CPT = "CPT"
    """Continued pre-training on text; the loss is on every token."""


class LoraPlan(Document):
    """A low-rank adapter, in peft's terms."""

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


class Metric(StrEnum):
    """What is measured on the held-out split."""

    EVAL_LOSS = "EvalLoss"
    """Mean loss per supervised token; lower is better."""
    EXACT_MATCH = "ExactMatch"
    """Share of greedy answers equal to the reference after trimming white space."""


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
    hyperparameters: Hyperparameters
    checkpoints: CheckpointPlan = CheckpointPlan()
    validation: ValidationPlan = ValidationPlan()
    evaluation: EvaluationPlan = EvaluationPlan()
    truncated_share: float = 0.01
    """Share of tokens that may be cut at max_length before the run is refused."""
    claim: str


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
