"""What a run has cost: hours of accelerators over all its attempts, the lost ones among them, and their price. Pure."""

from finetune_operator.api.finetunejobstatus import Attempt, CostStatus, ProgressStatus
from finetune_operator.reconcile.limits import Usage

DIGITS = 6
"""Digits after the point that are kept: a 3.6 ms share of a GPU-hour, a millionth of a currency's unit."""

KEPT = frozenset({"Succeeded"})
"""Ends after which nothing is done again."""


def lost_share(attempt: Attempt, seen: ProgressStatus | None) -> float:
    """Which share of an attempt's time was for nothing, from 0 to 1.

    Of the steps it made, those after its last checkpoint; all of its time where it saved none. Of a pod that left no
    last word, its progress tells how far it was.
    """
    if attempt.reason in KEPT:
        return 0.0
    start, checkpoint = attempt.resumed_from_step or 0, attempt.checkpoint_step or 0
    reached = max(attempt.step, checkpoint, seen.step if seen else 0)
    saved = max(0, checkpoint - start)
    return 1.0 - saved / (reached - start) if saved else 1.0


def add(cost: CostStatus | None, used: Usage, lost: float, currency: str) -> CostStatus | None:
    """The cost with that of one more attempt; CPUs alone are not counted."""
    if used.gpu_seconds <= 0:
        return cost
    hours = used.gpu_seconds / 3600
    amount = amount_in(cost) + used.amount
    return CostStatus(
        gpu_hours=round((cost.gpu_hours if cost else 0.0) + hours, DIGITS),
        lost_gpu_hours=round((cost.lost_gpu_hours if cost else 0.0) + hours * lost, DIGITS),
        amount=round(amount, DIGITS) if amount else None,
        currency=(currency or (cost.currency if cost else None)) if amount else None,
    )


def amount_in(cost: CostStatus | None) -> float:
    """The amount so far."""
    return (cost.amount if cost else None) or 0.0
