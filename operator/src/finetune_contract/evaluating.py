"""What is measured on held-out rows: the plan's part, and the scores that come back."""

from enum import StrEnum
from typing import Literal

from finetune_contract.base import Count, Document, Label, StoredReference
from finetune_contract.failure import Failure

TUNED = "Tuned"
"""The name of the tuned model among an evaluation's systems; the others are Baseline's values."""


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

    @property
    def higher_is_better(self) -> bool:
        """Whether a model with the larger number is the better one."""
        return self not in LOWER_IS_BETTER


LOWER_IS_BETTER = frozenset({Metric.EVAL_LOSS})
"""Metrics where the smaller number is the better one."""


class Baseline(StrEnum):
    """What the tuned model is compared with."""

    ZERO_SHOT = "ZeroShot"
    FEW_SHOT = "FewShot"
    PREVIOUS = "Previous"
    """The artifact of the same job that passed its gate last; nothing is measured while there is none."""


class EvaluationPlan(Document):
    """What is measured after training, on `split` rows."""

    metrics: tuple[Metric, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    split: Literal["validation", "test"] = "test"
    max_rows: int = 200
    few_shot_examples: int = 4
    max_new_tokens: int = 64
    previous: StoredReference | None = None
    """What the baseline Previous is measured with; `baselines` names Previous only where this is set."""
    previous_base: StoredReference | None = None
    """The base that `previous` is an adapter for, which need not be the plan's; None: `previous` is a whole model."""


class Score(Document):
    """One metric of one system on the held-out rows."""

    metric: Metric
    system: Label
    """`Tuned` or a Baseline's value."""
    value: float
    low: float | None = None
    """Lower end of the 95 % bootstrap interval."""
    high: float | None = None
    rows: Count
    difference: float | None = None
    """Of a baseline: the tuned model's value less this one's, on the same rows, in the metric's own units."""
    difference_low: float | None = None
    """Lower end of the difference's 95 % paired bootstrap interval."""
    difference_high: float | None = None
    p_value: float | None = None
    """Of a baseline: probability of so large a difference, either way, were the two equally good (paired test)."""


class EvaluationResult(Document):
    """What a pod leaves that measured a published artifact anew."""

    evaluation: tuple[Score, ...] = ()
    failure: Failure | None = None


SYSTEMS: tuple[str, ...] = (TUNED, *(baseline.value for baseline in Baseline))
"""Every system an evaluation may name, tuned first."""
