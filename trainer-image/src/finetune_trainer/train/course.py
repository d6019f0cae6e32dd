"""What the log of a run says about its course: its best step, whether to stop early, what to warn of.

Pure functions of transformers' `log_history`, which is part of every checkpoint: an attempt that resumes decides as one
that was never interrupted.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from finetune_contract.results import RunWarning, WarningReason
from finetune_contract.training import EarlyStoppingPlan, ValidationPlan

EVAL_LOSS = "eval_loss"
"""The key of a validation loss in the log; transformers' own."""

_RISES = 2
"""Evaluations in a row that must be worse than the one before."""

_LEAST_RISE = 0.02
"""Share by which the loss must be above its lowest: below, a converged run wobbles."""

_UNVARYING_STEPS = 10
"""Logged steps in a row without any difference between rewards: after fewer, chance may end it."""

Log = Sequence[Mapping[str, Any]]
"""transformers' `log_history`: one dict per entry, with `step` and what was logged."""


class Evaluation(NamedTuple):
    """One look at the validation rows."""

    step: int
    loss: float
    train_loss: float | None
    """Mean training loss since the evaluation before; None where nothing was logged between."""


def evaluations(log: Log) -> list[Evaluation]:
    """All evaluations, oldest first."""
    found: list[Evaluation] = []
    # The training loss of an evaluated step is logged after its evaluation, so entries are taken by their steps.
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    for entry in log:
        if EVAL_LOSS in entry:
            before = found[-1].step if found else 0
            between = [loss for step, loss in losses if before < step <= entry["step"]]
            found.append(Evaluation(entry["step"], entry[EVAL_LOSS], fmean(between) if between else None))
    return found


def best(log: Log, min_delta: float = 0.0) -> Evaluation | None:
    """The evaluation with the lowest loss, the first of equals; a later one must be lower by more than `min_delta`."""
    lowest: Evaluation | None = None
    for each in evaluations(log):
        if lowest is None or each.loss < lowest.loss - min_delta:
            lowest = each
    return lowest


def is_over(log: Log, early: EarlyStoppingPlan | None) -> bool:
    """Whether training ends here because the loss has not become better for `patience` evaluations."""
    if early is None:
        return False
    lowest = best(log, early.min_delta)
    return lowest is not None and sum(each.step > lowest.step for each in evaluations(log)) >= early.patience


def publishes_best(plan: ValidationPlan) -> bool:
    """Whether the weights of the best step are published: who stops for lack of progress wants what was before."""
    return plan.keep_best or plan.early_stopping is not None


def step_to_publish(log: Log, plan: ValidationPlan) -> Evaluation | None:
    """The evaluation whose weights are published; None for those of the last step."""
    if not publishes_best(plan):
        return None
    return best(log, plan.early_stopping.min_delta if plan.early_stopping else 0.0)


def best_is_lost(chosen: Evaluation, step: int, loss: float | None) -> RunWarning:
    """The warning that other weights than the best were published, because those are damaged."""
    instead = f"step {step} (validation loss {loss:.4g})" if loss is not None else f"step {step}"
    return RunWarning(
        reason=WarningReason.BEST_CHECKPOINT_LOST,
        message=f"the checkpoint of step {chosen.step}, the best (validation loss {chosen.loss:.4g}), does not verify; "
        f"{instead} was published instead: look at the volume",
    )


def overfitting(log: Log) -> RunWarning | None:
    """A warning if the validation loss rose twice in a row while the training loss fell."""
    seen = evaluations(log)
    for last in range(_RISES, len(seen)):
        window = seen[last - _RISES : last + 1]
        lowest = min(seen[: last + 1], key=lambda each: each.loss)
        rose = all(after.loss > before.loss for before, after in pairwise(window))
        if rose and _fell(window) and window[-1].loss > lowest.loss * (1 + _LEAST_RISE):
            return RunWarning(
                reason=WarningReason.OVERFITTING,
                message=f"the validation loss rose from {lowest.loss:.4g} (step {lowest.step}) to "
                f"{window[-1].loss:.4g} (step {window[-1].step}) while the training loss fell to "
                f"{window[-1].train_loss:.4g}; use fewer epochs or more rows, or set spec.validation.keepBest",
            )
    return None


def _fell(window: Sequence[Evaluation]) -> bool:
    losses = [each.train_loss for each in window]
    return all(a is not None and b is not None and b < a for a, b in pairwise(losses))


def rewards_without_variance(log: Log) -> RunWarning | None:
    """A warning if no group of answers got different rewards for many steps (TRL's `frac_reward_zero_std`)."""
    row = 0
    for entry in log:
        if "frac_reward_zero_std" not in entry:
            continue
        row = row + 1 if entry["frac_reward_zero_std"] >= 1 else 0
        if row >= _UNVARYING_STEPS:
            return RunWarning(
                reason=WarningReason.NO_REWARD_VARIANCE,
                message=f"step {entry['step']}: all answers to a prompt got the same reward for {row} logged steps, so "
                "nothing is learnt; use other rewards, more generations, or a higher temperature",
            )
    return None
