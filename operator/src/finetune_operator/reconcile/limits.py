"""What a run has used of its limits: time and GPU-hours over all its attempts, and what is left for one more."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from finetune_contract.failure import Failure, FailureReason
from finetune_operator.api.base import seconds_of
from finetune_operator.manifests.accelerators import accelerators_per_pod
from finetune_operator.manifests.naming import Manifest
from finetune_operator.manifests.prices import price_on
from finetune_operator.reconcile.endings import pods_of


class Usage(NamedTuple):
    """What pods have used."""

    seconds: float
    """How long they ran."""
    gpu_seconds: float
    """The same times their accelerators."""
    amount: float = 0.0
    """What that costs by the price list; accelerators without a price are not in it."""

    def plus(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(self.seconds + other.seconds, self.gpu_seconds + other.gpu_seconds, self.amount + other.amount)


def usage_of(job: Manifest, pods: Iterable[Manifest], now: datetime) -> Usage:
    """What an attempt has used so far, over all pods it has had; containers that do not run yet cost nothing."""
    return of_pods(job, sum(_seconds(pod, now) for pod in pods_of(job, pods)))


def of_pods(job: Manifest, seconds: float) -> Usage:
    """What the seconds of all pods of a Job together are; the pods of several ranks run side by side."""
    amount = seconds / 3600 * (price_on(job) or 0.0)
    return Usage(seconds / _ranks_of(job), seconds * accelerators_per_pod(job), amount)


def accelerators_of(job: Manifest) -> int:
    """What all pods of a training Job have together."""
    return accelerators_per_pod(job) * _ranks_of(job)


def _ranks_of(job: Manifest) -> int:
    return int((job.get("spec") or {}).get("parallelism") or 1)


def _seconds(pod: Manifest, now: datetime) -> float:
    total = 0.0
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        state = container.get("state") or {}
        running, terminated = state.get("running") or {}, state.get("terminated") or {}
        start = running.get("startedAt") or terminated.get("startedAt")
        if start:
            end = terminated.get("finishedAt")
            last = datetime.fromisoformat(end) if end else _last_sign(pod, now)
            total += max(0.0, (last - datetime.fromisoformat(start)).total_seconds())
    return total


def _last_sign(pod: Manifest, now: datetime) -> datetime:
    """Until when a container that is not known to have ended has run: a pod that is gone runs no more."""
    gone = pod["metadata"].get("deletionTimestamp")
    return min(now, datetime.fromisoformat(gone)) if gone else now


class Left(NamedTuple):
    """What is left until the first limit."""

    seconds: float
    """Seconds of one attempt; not positive when the limit is reached."""
    failure: Failure
    """What stops the run then."""


class Limits(Protocol):
    """Where a run is stopped."""

    @property
    def duration(self) -> str | None:
        """How long its pods may run in all."""

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours that it may use."""


def left(limits: Limits, used: Usage, accelerators: int) -> Left | None:
    """What is left for an attempt with so many accelerators; None without a limit."""
    found = []
    if limits.duration is not None:
        message = f"spec.limits.duration: the run's pods have run for {limits.duration}"
        failure = Failure(reason=FailureReason.DEADLINE_EXCEEDED, message=message)
        found.append(Left(seconds_of(limits.duration) - used.seconds, failure))
    if limits.gpu_hours is not None and accelerators:
        message = f"spec.limits.gpuHours: the run has used {limits.gpu_hours:g} GPU-hours"
        failure = Failure(reason=FailureReason.GPU_HOURS_EXCEEDED, message=message)
        found.append(Left((limits.gpu_hours * 3600 - used.gpu_seconds) / accelerators, failure))
    return min(found, key=lambda entry: entry.seconds, default=None)
