"""Settings of the training methods: one object per method, named after it."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.methods import Method
from finetune_operator.api.base import ApiModel, NameReference, exactly_one_of, rule, rules

Beta = Annotated[float, Field(ge=0, le=100)]
Weight = Annotated[float, Field(ge=-1000, le=1000)]
Tokens = Annotated[int, Field(ge=1, le=1_048_576)]


class DpoLoss(StrEnum):
    """DPO's losses, by TRL's names."""

    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"
    ROBUST = "robust"


class DpoSettings(ApiModel):
    """Settings of DPO."""

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """How strongly the model is held to what it was; higher changes it less."""
    loss: DpoLoss = DpoLoss.SIGMOID
    """The loss: sigmoid is DPO's own; robust expects labels of which a share is wrong."""
    # Inclusive: the API server rounds an exclusive bound of a default that is 0 down to 0, and refuses the CRD.
    label_smoothing: Annotated[float, Field(ge=0, le=0.49)] = 0.0
    """Share of pairs that are probably the wrong way round; only the robust loss uses it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.labelSmoothing) || self.labelSmoothing == 0.0 || (has(self.loss) && self.loss == 'robust')",
                "labelSmoothing is used by loss: robust only; set that, or leave labelSmoothing out",
            )
        )
    )


class OrpoSettings(ApiModel):
    """Settings of ORPO."""

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Weight of the odds ratio beside the loss of the chosen answer."""


class SimpoSettings(ApiModel):
    """Settings of SimPO."""

    beta: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Scale of the mean log-probabilities."""
    gamma: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Margin that the chosen answer should have; the paper recommends half of beta."""


class KtoSettings(ApiModel):
    """Settings of KTO."""

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """How strongly the model is held to what it was; higher changes it less."""
    desirable_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of good answers; raise it where they are few."""
    undesirable_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of bad answers; raise it where they are few."""


class ExactMatchReward(ApiModel):
    """1 for an answer that equals the row's `answer`."""


class RegexReward(ApiModel):
    """1 for an answer that holds a match."""

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A Python regular expression."""


class JsonSchemaReward(ApiModel):
    """1 for an answer that is JSON and fits a schema."""

    json_schema: Annotated[str, StringConstraints(min_length=2, max_length=8192), Field(alias="schema")]
    """The JSON schema, as JSON text."""


class LengthReward(ApiModel):
    """1 for an answer whose length is within bounds."""

    min_tokens: Annotated[int, Field(ge=0, le=1_048_576)] = 0
    """Tokens that it has at least."""
    max_tokens: Tokens
    """Tokens that it has at most."""


class RewardSource(ApiModel):
    """Where reward comes from: exactly one."""

    fine_tune_job: NameReference | None = None
    """A FineTuneJob of method Reward: its model scores the answers."""
    exact_match: ExactMatchReward | None = None
    """1 for an answer that equals the row's `answer`, else 0."""
    regex: RegexReward | None = None
    """1 for an answer that a regular expression finds a match in, else 0."""
    json_schema: JsonSchemaReward | None = None
    """1 for an answer that is JSON and fits a schema, else 0."""
    length: LengthReward | None = None
    """1 for an answer whose length is within bounds, else 0."""
    weight: Weight = 1.0
    """Factor in the sum of all rewards; negative for what is unwanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(exactly_one_of("fineTuneJob", "exactMatch", "regex", "jsonSchema", "length"))
    )


Rewards = Annotated[list[RewardSource], Field(min_length=1, max_length=8)]


class GrpoSettings(ApiModel):
    """Settings of GRPO."""

    rewards: Rewards
    """What answers are judged by; the rewards are added up."""
    generations: Annotated[int, Field(ge=2, le=128)] = 8
    """Answers per prompt that are compared with each other; divides hyperparameters.globalBatchSize."""
    beta: Beta = 0.0
    """Weight of the KL divergence from the model before training; 0 needs no reference."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Of the sampling; higher tries more."""
    max_completion_length: Tokens = 256
    """Tokens of an answer; longer ones are cut, and progress says how many."""


class RlooSettings(GrpoSettings):
    """Settings of RLOO."""

    generations: Annotated[int, Field(ge=2, le=128)] = 4
    """Answers per prompt that are compared with each other; divides hyperparameters.globalBatchSize."""
    beta: Beta = 0.05
    """Weight of the KL divergence from the model before training; 0 needs no reference."""


class Teacher(ApiModel):
    """The model that is learnt from."""

    fine_tune_job: NameReference
    """A FineTuneJob of this namespace; its model, or its adapter on its base."""


class DistillationSettings(ApiModel):
    """Settings of Distillation."""

    teacher: Teacher
    """The model that is learnt from; it must have the same tokenizer."""
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    """0 learns all that the teacher could say (forward KL), 1 what it would say of the answers given (reverse KL)."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Of the sampling of answers."""
    max_completion_length: Tokens = 256
    """Tokens of an answer."""


_SETTINGS = {
    "dpo": Method.DPO,
    "orpo": Method.ORPO,
    "simpo": Method.SIMPO,
    "kto": Method.KTO,
    "grpo": Method.GRPO,
    "rloo": Method.RLOO,
    "distillation": Method.DISTILLATION,
}

REQUIRED_SETTINGS = ("grpo", "rloo", "distillation")
"""Objects without which their method cannot run."""


def _method_rules() -> list[dict[str, Any]]:
    alone = [
        rule(
            f"!has(self.{name}) || (has(self.method) && self.method == '{method}')",
            f"{name}: is for method {method} only; set spec.method: {method}, or leave {name} out",
        )
        for name, method in _SETTINGS.items()
    ]
    required = [
        rule(
            f"!has(self.method) || self.method != '{_SETTINGS[name]}' || has(self.{name})",
            f"method {_SETTINGS[name]} needs spec.{name}",
        )
        for name in REQUIRED_SETTINGS
    ]
    groups = [
        rule(
            f"!has(self.{name}) || !has(self.{name}.generations) || !has(self.hyperparameters) || "
            "!has(self.hyperparameters.globalBatchSize) || "
            f"self.hyperparameters.globalBatchSize % self.{name}.generations == 0",
            f"hyperparameters.globalBatchSize: is a multiple of generations for method {_SETTINGS[name]}; both count "
            "answers",
        )
        for name in ("grpo", "rloo")
    ]
    # KTO compares an answer with its neighbour's in the forward pass: alone, it would be compared with itself.
    neighbours = [
        rule(
            f"!has(self.method) || self.method != '{Method.KTO}' || !has(self.hyperparameters) || "
            f"!has(self.hyperparameters.{field}) || self.hyperparameters.{field} >= 2",
            f"hyperparameters.{field}: method KTO compares answers with their neighbours; use at least 2",
        )
        for field in ("microBatchSize", "globalBatchSize")
    ]
    return [*alone, *required, *groups, *neighbours]


METHOD_RULES = _method_rules()
