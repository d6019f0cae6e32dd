"""When a namespace's store is collected, and what came of it."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from finetune_contract.collection import CollectionResult
from finetune_contract.failure import Failure
from finetune_operator.manifests.naming import LABEL_ATTEMPT, Manifest
from finetune_operator.reconcile.endings import ending_of, finished_at, label_of, name_of
from finetune_operator.reconcile.outcome import ChildName, Event
from finetune_operator.reconcile.resources import child


@dataclass(frozen=True)
class Decision:
    """What is to be done about one claim now."""

    start: int | None = None
    """Number of the collection to begin."""
    delete: tuple[ChildName, ...] = ()
    """What earlier collections left; the newest stays, for people who look."""


def decide(
    claim: Manifest, jobs: Sequence[Manifest], plans: Iterable[Manifest], now: datetime, interval: float
) -> Decision:
    """One collection in each interval, never two at a time; the claims of many namespaces take their turns."""
    number = number_at(claim, now, interval)
    numbers = [_number_of(job) for job in jobs]
    is_due = number not in numbers and all(finished_at(job) for job in jobs)
    kept = {number, max(numbers, default=number)}
    old_jobs = [job for job in jobs if finished_at(job) and _number_of(job) not in kept]
    running = {_number_of(job) for job in jobs} - {_number_of(job) for job in old_jobs}
    old_plans = [plan for plan in plans if _number_of(plan) not in kept | running]
    return Decision(
        start=number if is_due else None,
        delete=tuple(child("Job", job) for job in old_jobs if _is_there(job))
        + tuple(child("ConfigMap", plan) for plan in old_plans if _is_there(plan)),
    )


def number_at(claim: Manifest, now: datetime, interval: float) -> int:
    """Counts the intervals; they begin at another time for each claim."""
    share = int(hashlib.sha256(str(claim["metadata"]["uid"]).encode()).hexdigest()[:8], 16) / 2**32
    return int(now.timestamp() / interval + share)


def result_of(job: Manifest, pods: Sequence[Manifest], now: datetime) -> CollectionResult | None:
    """What an ended collection says it has done; None while it has not ended."""
    ending = ending_of(job, pods, now)
    if ending is None:
        return None
    try:
        return CollectionResult.from_message(ending.message)
    except ValidationError as error:
        said = Failure(reason="ContractViolation", message=f"no valid result: {error.errors()[0]['msg']}")
        return CollectionResult(failure=ending.failure or said)


def event_of(job: Manifest, result: CollectionResult) -> Event | None:
    """What people should know; nothing where nothing was deleted."""
    if result.failure:
        return Event("Warning", "CollectionFailed", f"{name_of(job)}: {result.failure.message}")
    if not result.removed and not result.checkpoints_removed:
        return None
    message = (
        f"{result.removed} entries of the store and the checkpoints of {result.checkpoints_removed} runs deleted: "
        f"{result.bytes / 2**30:.1f} GiB; {result.in_use} entries are in use, {result.waiting} wait for their age"
    )
    return Event("Normal", "Collected", message)


def _number_of(item: Manifest) -> int:
    text = label_of(item, LABEL_ATTEMPT)
    return int(text) if text.isascii() and text.isdigit() else 0


def _is_there(item: Manifest) -> bool:
    return not item["metadata"].get("deletionTimestamp")
