"""`evaluation.json`: the scores, and every row that they come from."""

from finetune_contract.base import Count, Document, Label, Sha256
from finetune_contract.evaluating import TUNED, Metric, Score, Speed
from finetune_contract.failure import Failure


class EvaluatedRow(Document):
    """One held-out row, and what every system made of it."""

    prompt: str
    """As Tuned and ZeroShot read it; FewShot has solved rows before it."""
    reference: str
    answers: dict[str, str] = {}
    """By system; empty where no metric needs answers."""
    losses: dict[str, float] = {}
    """By system: mean loss per supervised token, in nats; empty where no metric needs it."""
    verdicts: dict[str, str] = {}
    """By baseline: whose answer the judge prefers, `Tuned`, `Baseline`, `Tie` or, by order only, `Inconsistent`."""


class Confusion(Document):
    """Which labels a system answers for which."""

    system: Label
    labels: tuple[str, ...]
    """The last one stands for answers that are no label."""
    table: tuple[tuple[Count, ...], ...]
    """Rows: the right label; columns: the answered one."""


class Judgement(Document):
    """What a judge found in comparing the tuned model with one baseline, each row in both orders."""

    baseline: Label
    model: str
    endpoint: str
    prompt_hash: Sha256
    """Over the model's name, the prompt's template and the sampling settings."""
    rows: Count
    """With a verdict in both orders."""
    wins: Count
    """Rows in which the tuned model's answer is preferred in both orders."""
    losses: Count
    ties: Count
    """Rows that are called a tie in both orders, or in one; equal answers are never asked about."""
    inconsistent: Count
    """Rows in which the order decides; counted as a tie."""
    failed: Count
    """Rows that stayed without a verdict."""
    win_rate: float
    low: float
    high: float
    length_controlled_win_rate: float
    """What it would be with answers of equal length (logistic regression; Dubois et al. 2024)."""


class TaskResult(Document):
    """What one task of lm-eval-harness says about one system."""

    task: Label
    system: Label
    metric: Label
    value: float
    stderr: float | None = None
    rows: Count


class EndpointUse(Document):
    """What was asked of a judge, or of a baseline behind an endpoint."""

    system: Label | None = None
    """The baseline; None: the judge."""
    requests: Count = 0
    retries: Count = 0
    """Requests that were made again: no answer in time, too many requests, an error, or no verdict."""
    nonsense: Count = 0
    """Answers that were none, or without a verdict."""


class Evaluation(Document):
    """The whole evaluation."""

    split: str
    scores: tuple[Score, ...] = ()
    rows: tuple[EvaluatedRow, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    judge: EndpointUse | None = None
    endpoints: tuple[EndpointUse, ...] = ()
    """What was asked of baselines behind endpoints."""
    tasks: tuple[TaskResult, ...] = ()
    speed: Speed | None = None
    seconds: dict[str, float] = {}
    """What each system took."""
    recalled: tuple[str, ...] = ()
    """Baselines of which everything was measured before, on the same rows with the same settings."""
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    failure: Failure | None = None
    """Why it is not complete; what was measured stands."""

    def tuned_loss(self) -> float | None:
        """EvalLoss of the tuned model, if it was measured."""
        values = [each.value for each in self.scores if each.metric is Metric.EVAL_LOSS and each.system == TUNED]
        return values[0] if values else None
