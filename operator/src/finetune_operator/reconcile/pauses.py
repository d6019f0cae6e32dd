"""What an attempt waits for before it starts: what runs or saves still, and a breath after a failure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from finetune_contract.failure import policy_of, reason_of
from finetune_operator.manifests import training
from finetune_operator.manifests.naming import LABEL_ROLE, LABEL_RUN, Manifest
from finetune_operator.reconcile.draft import SUSPENDED, Draft
from finetune_operator.reconcile.endings import finished_at, label_of, name_of, numbered

LONGEST = 300.0
"""Seconds of the longest pause after failures in a row."""

OVERDUE = timedelta(seconds=15)
"""How long past its grace period a pod may take to go before it is believed lost with its node."""

A_LOOK = 5.0
"""Seconds until what an event should have told is looked at again."""


class Wait(NamedTuple):
    """Why, and how long, the next attempt is not started."""

    reason: str
    message: str
    seconds: float


def before_next(draft: Draft, now: datetime) -> Wait | None:
    """What the next attempt waits for; None if it may start."""
    return _for_job(draft) or _for_pods(draft, now) or _after_failure(draft, now)


def _for_job(draft: Draft) -> Wait | None:
    """The operator may have died between writing that an attempt was stopped and stopping it."""
    assert draft.run is not None
    for _, job in numbered(draft.observed.of("Job"), training.ROLE, draft.run.key):
        if finished_at(job) is None and not job["metadata"].get("deletionTimestamp"):
            return Wait("Stopping", f"waiting until {name_of(job)} was told to stop", A_LOOK)
    return None


def _for_pods(draft: Draft, now: datetime) -> Wait | None:
    """Pods of earlier attempts may still be writing the checkpoint that the next one starts from."""
    for pod in _without_job(draft):
        gone_by = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]) + OVERDUE
        if gone_by > now:
            message = f"waiting for pod {name_of(pod)} to save its checkpoint and stop"
            return Wait("Stopping", message, (gone_by - now).total_seconds())
    return None


def _without_job(draft: Draft) -> Iterable[Manifest]:
    """Training pods of the run that are being deleted and whose Job is gone already, or only waits for them."""
    assert draft.run is not None
    jobs = {
        item["metadata"]["uid"] for item in draft.observed.of("Job") if not item["metadata"].get("deletionTimestamp")
    }
    for pod in draft.observed.of("Pod"):
        owners = {owner.get("uid") for owner in pod["metadata"].get("ownerReferences") or ()}
        if (
            label_of(pod, LABEL_ROLE) == training.ROLE
            and label_of(pod, LABEL_RUN) == draft.run.key[:16]
            and pod["metadata"].get("deletionTimestamp")
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            and not owners & jobs
        ):
            yield pod


def _after_failure(draft: Draft, now: datetime) -> Wait | None:
    last = draft.attempts[-1] if draft.attempts else None
    if last is None or last.finished_at is None or last.reason == SUSPENDED:
        return None
    ended = Last(last.reason, last.finished_at)
    seconds = draft.observed.settings.retry_seconds
    return after_failure(ended, draft.retries_used, draft.stalled_disruptions, seconds, now)


class Last(NamedTuple):
    """The attempt before."""

    reason: str
    finished_at: datetime


def after_failure(
    last: Last, retries_used: int, stalled_disruptions: int, shortest: float, now: datetime
) -> Wait | None:
    """The breath after a failure, twice as long after each; None where it is over.

    Args:
        last: The attempt before.
        retries_used: Failures that count.
        stalled_disruptions: Disruptions in a row that nothing was gained between.
        shortest: Seconds of the first pause.
        now: The time of the pass.
    """
    # The first disruption is nobody's fault; those that follow each other without progress look like one.
    is_counted = retries_used > 0 and policy_of(reason_of(last.reason)).counts
    failures = retries_used if is_counted else stalled_disruptions - 1
    if failures < 1:
        return None
    pause = min(shortest * 2 ** (failures - 1), LONGEST)
    seconds = (last.finished_at + timedelta(seconds=pause) - now).total_seconds()
    return Wait("BackOff", f"trying again in {pause:.0f} s after {last.reason}", seconds) if seconds > 0 else None
