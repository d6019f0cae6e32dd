"""What a run has cost: hours of accelerators over all its attempts, the lost ones among them, and their price. Pure.

And what its model will cost: tokens at the speed that was measured, and when that has paid for the training.
"""

from finetune_contract.evaluating import Speed
from finetune_operator.api.figures import CostStatus, SpeedStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import Attempt, ProgressStatus
from finetune_operator.manifests.prices import price_of
from finetune_operator.reconcile.limits import Usage
from finetune_operator.settings import Settings

DIGITS = 6
"""Digits after the point that are kept: a 3.6 ms share of a GPU-hour, a millionth of a currency's unit."""

MOST_TOKENS = 1e15
"""Beyond it a break-even is no plan."""

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


def keep_speed(
    job: FineTuneJob, speed: Speed | None, cost: CostStatus | None, settings: Settings
) -> SpeedStatus | None:
    """What was measured of the tuned model's speed, with what a million tokens cost and when training has paid off.

    The price is that of the accelerators which measured it: those of one training pod.
    """
    if speed is None:
        return None
    price, rate = price_of(job.spec.resources, job.spec.scheduling, settings), speed.generated_tokens_per_second
    found = SpeedStatus.model_validate(speed.model_dump())
    if not price or rate <= 0:
        return found
    million = price / 3600 / rate * 1e6
    told = {"cost_per_million_tokens": round(million, DIGITS), "currency": settings.currency or None}
    saved = (settings.api_price_per_million_tokens or 0.0) - million
    pays_off = saved > 0 and cost is not None and cost.amount is not None
    return found.model_copy(update={**told, "break_even_tokens": _break_even(cost, saved) if pays_off else None})


def _break_even(cost: CostStatus | None, saved: float) -> int | None:
    """Tokens after which what each million saves has paid for the training; None where that is beyond counting."""
    tokens = amount_in(cost) / saved * 1e6
    return round(tokens) if tokens < MOST_TOKENS else None


def amount_in(cost: CostStatus | None) -> float:
    """The amount so far."""
    return (cost.amount if cost else None) or 0.0
