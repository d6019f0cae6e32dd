"""Metrics of answers. Each is a library's; here rows become what it expects."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetune_contract.evaluating import EvaluationPlan, Metric
from finetune_trainer.evaluate.measures import Labels, Mean, Measure, coded
from finetune_trainer.evaluate.record import Confusion
from finetune_trainer.train.rewards import fits_schema, has_match

Grade = Callable[[str, str], float]
"""From an answer and its reference to the row's score."""


def _exact(answer: str, reference: str) -> float:
    return float(answer.strip() == reference.strip())


class _Words:
    """rouge-score's own tokenizer keeps only ASCII letters and digits; references are in any language."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def _rouge(kind: str) -> Grade:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=_Words())

    def grade(answer: str, reference: str) -> float:
        return float(scorer.score(reference, answer)[kind].fmeasure)

    return grade


def grade_of(metric: Metric, wanted: EvaluationPlan) -> Grade | None:
    """How the metric grades one answer; None for a metric that is none of single answers.

    Raises:
        FineTuneError: InvalidPlan for a pattern or schema that is none.
    """
    match metric:
        case Metric.EXACT_MATCH | Metric.ACCURACY:
            return _exact
        case Metric.TOKEN_F1:
            return _rouge("rouge1")
        case Metric.ROUGE_L:
            return _rouge("rougeL")
        case Metric.REGEX_MATCH:
            found = has_match(wanted.pattern, "evaluation.regex.pattern")
            return lambda answer, _: float(found(answer))
        case Metric.JSON_SCHEMA_VALID:
            fits = fits_schema(wanted.json_schema, "evaluation.jsonSchema.schema")
            return lambda answer, _: float(fits(answer))
    return None


OF_ANSWERS = frozenset(
    {
        Metric.EXACT_MATCH,
        Metric.ACCURACY,
        Metric.TOKEN_F1,
        Metric.ROUGE_L,
        Metric.REGEX_MATCH,
        Metric.JSON_SCHEMA_VALID,
        Metric.MACRO_F1,
        Metric.COHEN_KAPPA,
        Metric.JUDGE_WIN_RATE,
        Metric.REWARD_SCORE,
    }
)
"""Metrics for which every system answers the prompts."""

NEED_REFERENCE = frozenset(
    {
        Metric.EVAL_LOSS,
        Metric.PERPLEXITY,
        Metric.EXACT_MATCH,
        Metric.ACCURACY,
        Metric.TOKEN_F1,
        Metric.ROUGE_L,
        Metric.MACRO_F1,
        Metric.COHEN_KAPPA,
    }
)
"""Metrics that compare with the row's own answer."""


def measure_answers(
    metric: Metric, wanted: EvaluationPlan, answers: Sequence[str], references: Sequence[str], labels: Sequence[str]
) -> Measure | None:
    """A metric of answers; None where it is not one of them alone.

    Args:
        metric: What is measured.
        wanted: With the metric's settings.
        answers: Of one system.
        references: The rows' own answers.
        labels: Labels of the training rows; only of Classification rows.
    """
    if metric in (Metric.MACRO_F1, Metric.COHEN_KAPPA):
        truth, said, names = coded(_stripped(references), _stripped(answers), _stripped(labels))
        return Labels(said, truth, names, len(set(truth.tolist())), metric.value)
    grade = grade_of(metric, wanted)
    if grade is None:
        return None
    return Mean.over([grade(answer, reference) for answer, reference in zip(answers, references, strict=True)])


def confusion_of(system: str, answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Which labels are answered for which."""
    from sklearn.metrics import confusion_matrix

    truth, said, names = coded(_stripped(references), _stripped(answers), _stripped(labels))
    table: Any = confusion_matrix(truth, said, labels=np.arange(len(names)))
    return Confusion(system=system, labels=names, table=tuple(tuple(map(int, row)) for row in table))


def _stripped(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts]
