"""What an attempt waits for before it starts: pods that are still saving, and a breath after a failure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from finetune_contract.failure import policy_of, reason_of
from finetune_operator.manifests import training
from finetune_operator.manifests.naming import LABEL_ROLE, LABEL_RUN, Manifest
from finetune_operator.reconcile.draft import SUSPENDED, Draft
from finetune_operator.reconcile.endings import label_of, name_of

LONGEST = 300.0
"""Seconds of the longest pause after failures in a row."""

OVERDUE = timedelta(seconds=15)
"""How long past its grace period a pod may take to go before it is believed lost with its node."""


class Wait(NamedTuple):
    """Why, and how long, the next attempt is not started."""

    reason: str
    message: str
    seconds: float


def before_next(draft: Draft, now: datetime) -> Wait | None:
    """What the next attempt waits for; None if it may start."""
    return _for_pods(draft, now) or _after_failure(draft, now)


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
    # The first disruption is nobody's fault; those that follow each other without progress look like one.
    is_counted = draft.retries_used > 0 and policy_of(reason_of(last.reason)).counts
    failures = draft.retries_used if is_counted else draft.stalled_disruptions - 1
    if failures < 1:
        return None
    pause = min(draft.observed.settings.retry_seconds * 2 ** (failures - 1), LONGEST)
    seconds = (last.finished_at + timedelta(seconds=pause) - now).total_seconds()
    return Wait("BackOff", f"trying again in {pause:.0f} s after {last.reason}", seconds) if seconds > 0 else None
