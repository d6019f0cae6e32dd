"""Which metrics can be measured on which rows."""

import json
import re
from collections.abc import Iterable

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import EvaluationPlan, Metric

_CLASSES = (RowFormat.CLASSIFICATION,)
_PROMPTED = tuple(each for each in RowFormat if each is not RowFormat.TEXT)
_ALL = tuple(RowFormat)

METRIC_FORMATS: dict[Metric, tuple[RowFormat, ...]] = {
    **dict.fromkeys((Metric.EVAL_LOSS, Metric.PERPLEXITY, Metric.BENCHMARK), _ALL),
    **dict.fromkeys((Metric.EXACT_MATCH, Metric.TOKEN_F1, Metric.ROUGE_L), _PROMPTED),
    **dict.fromkeys((Metric.REGEX_MATCH, Metric.JSON_SCHEMA_VALID, Metric.JUDGE_WIN_RATE), _PROMPTED),
    **dict.fromkeys((Metric.MEAN_REWARD, Metric.REWARD_SCORE), _PROMPTED),
    **dict.fromkeys((Metric.ACCURACY, Metric.MACRO_F1, Metric.COHEN_KAPPA), _CLASSES),
    Metric.PREFERENCE_ACCURACY: (RowFormat.PREFERENCE,),
}
"""Rows that a metric can be measured on."""


def unfit_metrics(metrics: Iterable[Metric], row_format: RowFormat) -> str | None:
    """Why a metric cannot be measured on rows of a format, and what to do; None when all can."""
    for metric in metrics:
        if row_format not in METRIC_FORMATS[metric]:
            fitting = [each.value for each, formats in METRIC_FORMATS.items() if row_format in formats]
            return (
                f"spec.evaluation.metrics: {metric} needs {' or '.join(METRIC_FORMATS[metric])} rows; the dataset has "
                f"{row_format} rows: use {', '.join(fitting)}"
            )
    return None


def broken_settings(plan: EvaluationPlan) -> str | None:
    """What can be known to be wrong with a metric's settings without any library, naming the field."""
    if plan.pattern is not None:
        try:
            re.compile(plan.pattern)
        except re.error as error:
            return f"spec.evaluation.regex.pattern: {plan.pattern!r:.200} is no regular expression: {error}"
    if plan.json_schema is not None:
        try:
            json.loads(plan.json_schema)
        except ValueError as error:
            return f"spec.evaluation.jsonSchema.schema: is no JSON: {error}"
    template = plan.judge.prompt_template if plan.judge else None
    if template is not None and not all(place in template for place in ("{a}", "{b}")):
        return "spec.evaluation.judge.promptTemplate: has to contain {a} and {b}, the two answers"
    return None
