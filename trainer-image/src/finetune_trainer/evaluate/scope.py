"""What is measured on whom: what the plan asks for, less what the rows and the base cannot give, with the reasons."""

from dataclasses import dataclass

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import TUNED, Baseline, Metric
from finetune_contract.training import TrainingPlan
from finetune_trainer.data.instructions import Stripped
from finetune_trainer.evaluate.answered import NEED_REFERENCE, OF_ANSWERS
from finetune_trainer.evaluate.heldout import HeldOut


@dataclass(frozen=True)
class Scope:
    """The systems and metrics of one evaluation."""

    systems: tuple[str, ...]
    """Tuned first, then the baselines."""
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...]
    """What is left out, and why."""


def scope_of(plan: TrainingPlan, row_format: RowFormat, rows: HeldOut, instruction: Stripped | None) -> Scope:
    """What can be measured of what is asked for.

    Args:
        plan: What is asked for.
        row_format: Of the dataset revision.
        rows: What is measured on.
        instruction: What was cut off all rows of the revision.
    """
    wanted = plan.evaluation
    left_out = _unmeasurable(plan, row_format, rows)
    notes = [f"{each} is left out: {left_out[each]}" for each in wanted.metrics if each in left_out]
    if Baseline.ORIGINAL_PROMPT in wanted.baselines and instruction is None:
        notes.insert(0, "OriginalPrompt is left out: nothing was cut off the rows of this revision")
    return Scope(
        systems=_systems(plan, row_format, instruction),
        metrics=tuple(each for each in wanted.metrics if each not in left_out),
        notes=tuple(notes),
    )


def _systems(plan: TrainingPlan, row_format: RowFormat, instruction: Stripped | None) -> tuple[str, ...]:
    wanted = plan.evaluation
    left_out = set()
    if row_format is RowFormat.TEXT:
        # Plain text cannot be shown as solved examples, and is no question.
        left_out |= {Baseline.FEW_SHOT, *(each.name for each in wanted.named_baselines if each.endpoint)}
    if wanted.previous is None:
        left_out.add(Baseline.PREVIOUS)
    if instruction is None:
        left_out.add(Baseline.ORIGINAL_PROMPT)
    named = [*(each.value for each in wanted.baselines), *(each.name for each in wanted.named_baselines)]
    return (TUNED, *(each for each in named if each not in left_out))


def _unmeasurable(plan: TrainingPlan, row_format: RowFormat, rows: HeldOut) -> dict[Metric, str]:
    """Metrics for which the rows, or the plan, lack something."""
    found: dict[Metric, str] = {}
    is_text = row_format is RowFormat.TEXT
    if not is_text and not all(each.answer.strip() for each in rows.examples):
        found |= dict.fromkeys(NEED_REFERENCE, "there are rows without an answer to compare with")
    if is_text:
        found |= dict.fromkeys(OF_ANSWERS, "Text rows have no prompt to answer")
    if row_format is not RowFormat.CLASSIFICATION:
        classes = (Metric.ACCURACY, Metric.MACRO_F1, Metric.COHEN_KAPPA)
        found |= dict.fromkeys(classes, "only Classification rows have labels")
    if not all("rejected" in row for row in rows.rows):
        found[Metric.PREFERENCE_ACCURACY] = "the rows have no rejected answers"
    if plan.online is None:
        found[Metric.MEAN_REWARD] = f"method {plan.method} has no rewards"
    if plan.evaluation.reward_model is None:
        found[Metric.REWARD_SCORE] = "the job of spec.evaluation.rewardModel has made nothing yet"
    return found
