"""The methods of tuning, with the settings of each."""

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from finetune_contract.base import Document, StoredReference
from finetune_contract.datasets import RowFormat


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


SEQUENCE_METHODS = (Method.SFT, Method.CPT)
"""Methods whose loss is that of sequences; others have losses of their own."""


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
    if method not in ANSWERING_METHODS:
        return None
    return f"spec.parallelism: {method} trains in one process; ask for one node and at most one GPU"


def not_divided(method: Method) -> str | None:
    """Why several processes cannot divide the model by FSDP; None where they can."""
    if method in SEQUENCE_METHODS:
        return None
    return (
        f"spec.parallelism.strategy: FSDP divides the model of SFT and CPT; with {method} use Auto or DDP, for which "
        "each GPU holds the whole model"
    )


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
