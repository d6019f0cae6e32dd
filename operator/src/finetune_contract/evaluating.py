"""What is measured on held-out rows: the plan's part, and the scores that come back."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from finetune_contract.base import Address, Count, Document, Label, StoredReference
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
    PERPLEXITY = "Perplexity"
    """e to the mean loss per supervised token; lower is better."""
    REGEX_MATCH = "RegexMatch"
    """Share of greedy answers that `regex` finds a match in."""
    JSON_SCHEMA_VALID = "JSONSchemaValid"
    """Share of greedy answers that are JSON and fit `jsonSchema`."""
    TOKEN_F1 = "TokenF1"  # noqa: S105 - a metric's name
    """Mean F1 of the words that answer and reference share (ROUGE-1)."""
    ROUGE_L = "RougeL"
    """Mean F1 of the longest common subsequence of words (ROUGE-L)."""
    ACCURACY = "Accuracy"
    """Share of Classification rows whose label is answered."""
    MACRO_F1 = "MacroF1"
    """Mean of each label's F1, so that rare labels count as much as frequent ones."""
    COHEN_KAPPA = "CohenKappa"
    """Agreement with the rows' labels beyond chance (Cohen 1960)."""
    JUDGE_WIN_RATE = "JudgeWinRate"
    """Share of rows in which a judge prefers the tuned model's answer, a tie counted as half."""
    REWARD_SCORE = "RewardScore"
    """Mean score that a reward model gives the greedy answers."""
    BENCHMARK = "Benchmark"
    """Mean of lm-eval-harness tasks: what a model could do before and should still be able to."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a model with the larger number is the better one."""
        return self not in LOWER_IS_BETTER


LOWER_IS_BETTER = frozenset({Metric.EVAL_LOSS, Metric.PERPLEXITY})
"""Metrics where the smaller number is the better one."""


SIGNIFICANT = 0.05
"""At most this p-value has a difference that is shown as one; others may well be accidents."""


def clearly_better(metric: Metric, baselines: Mapping[str, tuple[float | None, float | None]]) -> set[str]:
    """The systems whose figure is beyond doubt the better one: baselines than Tuned, or Tuned than every baseline.

    Args:
        metric: Which end of it is good.
        baselines: Of each the tuned model's lead in the metric's own units, and the p-value of the paired test; None
            where it is not known.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    clear = {
        system: sign * lead
        for system, (lead, p_value) in baselines.items()
        if lead and p_value is not None and p_value <= SIGNIFICANT
    }
    ahead = {system for system, lead in clear.items() if lead < 0}
    is_ahead_of_all = bool(baselines) and len(clear) == len(baselines) and not ahead
    return {TUNED} if is_ahead_of_all else ahead


SMALLEST_P = 0.001
"""No smaller p-value is told: the permutation test of 1,999 exchanges knows none."""

ALWAYS_EXCHANGED = (Metric.EVAL_LOSS, Metric.PERPLEXITY, Metric.MACRO_F1, Metric.COHEN_KAPPA, Metric.REWARD_SCORE)
"""Metrics that only that test fits: their rows are never right or wrong, as McNemar's exact test would have them."""


def p_words(p_value: float) -> str:
    """A p-value for people."""
    return f"p ≤ {SMALLEST_P:g}" if p_value <= SMALLEST_P else f"p = {p_value:.3f}"


class Baseline(StrEnum):
    """What the tuned model is compared with."""

    ZERO_SHOT = "ZeroShot"
    FEW_SHOT = "FewShot"
    PREVIOUS = "Previous"
    """The artifact of the same job that passed its gate last; nothing is measured while there is none."""
    ORIGINAL_PROMPT = "OriginalPrompt"
    """The base model with the instruction that `prepare.stripInstructions` cut off the rows."""


class EndpointPlan(Document):
    """A model behind an OpenAI-compatible endpoint that answers the held-out prompts as a baseline."""

    url: Address
    """Its base URL, such as `https://host/v1`."""
    model: Label
    system_prompt: str | None = None
    """Said before each prompt; None: what `prepare.stripInstructions` cut off, if anything."""
    key_variable: Label | None = None
    """The environment variable with the API key."""
    concurrency: int = 4
    """Questions at once."""
    timeout_seconds: float = 60.0
    retries: int = 5
    """Of one question that is not answered."""


class NamedBaseline(Document):
    """Another model to compare with: an artifact of the store, or an endpoint."""

    name: Label
    artifact: StoredReference | None = None
    base: StoredReference | None = None
    """The base that `artifact` is an adapter for; None: it is a whole model."""
    endpoint: EndpointPlan | None = None


class JudgePlan(Document):
    """A model behind an OpenAI-compatible endpoint that says which of two answers is better."""

    endpoint: Address
    """Its base URL, such as `https://host/v1`."""
    model: Label
    prompt_template: str | None = None
    """With {prompt}, {reference}, {a} and {b}; None: the trainer's own."""
    max_tokens: int = 512
    """Of its answer."""
    concurrency: int = 4
    """Questions at once."""
    timeout_seconds: float = 60.0
    retries: int = 5
    """Of one question that is not answered, or not with a verdict."""
    max_failed_share: float = 0.05
    """Share of rows that may stay without a verdict."""


class BenchmarkPlan(Document):
    """Tasks of lm-eval-harness, from YAML files under the tasks' mount, or registered in lm-eval itself."""

    tasks: tuple[str, ...]
    limit: int | None = None
    """Rows of each task; None: all."""
    download: bool = False
    """Whether tasks that lm-eval knows may fetch their rows from the Hugging Face Hub."""


class EvaluationPlan(Document):
    """What is measured after training, on `split` rows."""

    metrics: tuple[Metric, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    named_baselines: tuple[NamedBaseline, ...] = ()
    split: Literal["validation", "test"] = "test"
    max_rows: int = 200
    few_shot_examples: int = 4
    max_new_tokens: int = 64
    previous: StoredReference | None = None
    """What the baseline Previous is measured with; `baselines` names Previous only where this is set."""
    previous_base: StoredReference | None = None
    """The base that `previous` is an adapter for, which need not be the plan's; None: `previous` is a whole model."""
    pattern: str | None = None
    """Of RegexMatch."""
    json_schema: str | None = None
    """Of JSONSchemaValid, as JSON text."""
    judge: JudgePlan | None = None
    """Of JudgeWinRate."""
    reward_model: StoredReference | None = None
    """Of RewardScore."""
    benchmark: BenchmarkPlan | None = None
    """Of Benchmark."""


class Score(Document):
    """One metric of one system on the held-out rows."""

    metric: Metric
    system: Label
    """`Tuned`, a Baseline's value, or a NamedBaseline's name."""
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


class Speed(Document):
    """How fast the tuned model answered held-out prompts in this evaluation."""

    device: Label
    """`cpu`, or the GPU's name."""
    batch_size: Count
    """Prompts that were answered at once."""
    prompt_tokens_per_second: float
    """Tokens read, over the time of the batches."""
    generated_tokens_per_second: float
    """Tokens written, over the time of the batches."""
    latency_p50: float
    """Seconds from prompt to whole answer, one prompt at a time: half of them were faster."""
    latency_p95: float


class EvaluationResult(Document):
    """What a pod leaves that measured a published artifact anew."""

    evaluation: tuple[Score, ...] = ()
    speed: Speed | None = None
    failure: Failure | None = None


SYSTEMS: tuple[str, ...] = (TUNED, *(baseline.value for baseline in Baseline))
"""The systems that need no name of their own, tuned first."""
