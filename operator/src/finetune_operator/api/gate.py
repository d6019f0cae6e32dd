"""The gate of a FineTuneJob: rules that its artifact's measurements must meet, and what was decided."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.evaluating import ALWAYS_EXCHANGED, SMALLEST_P, Baseline, Metric
from finetune_operator.api.base import ApiModel, Digest, Word, exactly_one_of, rule, rules
from finetune_operator.api.evaluating import BASELINE_NAME

MAX_RULES = 16

GATE_PASSED = "GatePassed"
"""Condition of a FineTuneJob: whether what its run made has met every rule of spec.gate; there only with a gate."""

GATE_IGNORED = "GateIgnored"
"""Condition of a ModelDeployment: True while it serves something that has passed no gate, by spec.ignoreGate."""

_EXCHANGED = ", ".join(f"'{metric}'" for metric in ALWAYS_EXCHANGED)

Bound = Annotated[float, Field(ge=-1e12, le=1e12)]
"""A number that a metric is compared with."""


BaselineName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=40, pattern=rf"^({'|'.join(Baseline)})$|{BASELINE_NAME}"),
]
"""A word of `spec.evaluation.baselines`, or a name in `spec.evaluation.namedBaselines`."""


class GateRule(ApiModel):
    """One demand on one metric: exactly one of atLeast, atMost, betterThan and notWorseThan."""

    metric: Metric
    """What is looked at; one of spec.evaluation.metrics."""
    at_least: Bound | None = None
    """The tuned model's number must be this or more."""
    at_most: Bound | None = None
    """The tuned model's number must be this or less."""
    better_than: BaselineName | None = None
    """A baseline, one of spec.evaluation's, that the tuned model must beat; of a loss the lower is better."""
    not_worse_than: BaselineName | None = None
    """A baseline, one of spec.evaluation's, that the tuned model must not fall behind, or only as far as by."""
    by: Annotated[float, Field(ge=0, le=1e12)] | None = None
    """By how much at least it must be better, or at most may be worse, in the metric's own units; unset: 0."""
    significance: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """With betterThan: the difference must also be significant at this level (two-sided paired test), such as 0.05;
    0.001 or more for EvalLoss, Perplexity, MacroF1, CohenKappa and RewardScore."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("atLeast", "atMost", "betterThan", "notWorseThan"),
            rule(
                "!has(self.by) || has(self.betterThan) || has(self.notWorseThan)",
                "by goes with betterThan or notWorseThan: it is a distance from a baseline",
            ),
            rule(
                "!has(self.significance) || has(self.betterThan)",
                "significance goes with betterThan: it is that of the difference to a baseline",
            ),
            rule(
                f"!has(self.significance) || self.significance >= {SMALLEST_P} || !(self.metric in [{_EXCHANGED}])",
                f"significance: the paired test of this metric can tell no p-value below {SMALLEST_P}, so the rule "
                f"could never be met; use {SMALLEST_P} or more",
            ),
        )
    )


class Gate(ApiModel):
    """What an artifact must have shown before it is taken for the job's, and served."""

    rules: Annotated[list[GateRule], Field(min_length=1, max_length=MAX_RULES)]
    """Rules that must all be met; one against Previous is skipped while there is no earlier artifact."""


def _measured(word: str) -> dict[str, str]:
    return rule(
        f"!has(self.gate) || self.gate.rules.all(r, !has(r.{word}) || (has(self.evaluation) && ("
        f"(has(self.evaluation.baselines) && r.{word} in self.evaluation.baselines) || "
        "(has(self.evaluation.namedBaselines) && "
        f"self.evaluation.namedBaselines.exists(b, b.name == r.{word})))))",
        f"gate.rules: {word} names a baseline that is not measured; add it to spec.evaluation.baselines",
    )


GATE_RULES = (
    rule(
        "!has(self.gate) || (has(self.evaluation) && has(self.evaluation.metrics) && "
        "self.gate.rules.all(r, r.metric in self.evaluation.metrics))",
        "gate.rules: a rule names a metric that is not measured; add it to spec.evaluation.metrics",
    ),
    *(_measured(word) for word in ("betterThan", "notWorseThan")),
)
"""On the spec: a number that nobody measures could never be met."""


class Verdict(StrEnum):
    """What a gate decided about an artifact."""

    PASSED = "Passed"
    FAILED = "Failed"
    UNDECIDED = "Undecided"
    """What the gate needs is not measured yet."""


class RuleOutcome(StrEnum):
    """What became of one rule."""

    PASSED = "Passed"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    """It compares with Previous, and there is none."""


class RuleStatus(ApiModel):
    """What became of one rule, in the order of spec.gate.rules."""

    outcome: RuleOutcome
    """Passed, Failed or Skipped."""
    message: Annotated[str, StringConstraints(max_length=256)]
    """The rule with the numbers that decided it."""


class GateStatus(ApiModel):
    """What the gate decided, about which artifact."""

    digest: Digest
    """The artifact."""
    verdict: Verdict
    """Passed if no rule failed."""
    key: Word
    """Names the rules and the evaluation that it was decided by; while they are the same the verdict stands."""
    rules: Annotated[list[RuleStatus], Field(max_length=MAX_RULES)] = []
    """What became of each rule."""
