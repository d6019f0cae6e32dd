"""What Kueue says of a Job of ours, read from its Workload and its queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from finetune_operator.manifests.naming import LABEL_QUEUE, LABEL_QUEUE_PRIORITY, Manifest
from finetune_operator.reconcile.endings import finished_at, is_suspended, label_of, name_of
from finetune_operator.reconcile.troubles import Trouble

PATIENCE = timedelta(seconds=10)
"""How long Kueue gets to make a Workload for a new Job before its absence is said to be a fault."""

MESSAGE_LIMIT = 1024

EXACT = 20
"""Up to here a place in a queue is told exactly; beyond, in steps of ten: each admission moves everyone behind it, and
each of them would need a status write."""


@dataclass(frozen=True)
class Admission:
    """Why a suspended Job waits."""

    installed: bool = True
    """Whether the API server knows Kueue's kinds."""
    workload: str | None = None
    """Name of the Job's Workload; None while Kueue has made none."""
    active: bool = True
    """False: somebody, or a limit of Kueue's, has taken the Workload out of the queue."""
    reason: str = ""
    """Kueue's reason for not having admitted it: Pending, Inadmissible, QuotaReserved (admission checks are open)."""
    message: str = ""
    """Kueue's words."""
    given_up: str = ""
    """Why Kueue will never admit it, in Kueue's words: the Workload has ended although the Job has not."""
    evicted: str = ""
    """Why it lost its quota, in Kueue's words; empty if it never had any since it was queued."""
    position: int | None = None
    waiting: int | None = None

    @classmethod
    def of(cls, workload: Manifest, pending: Sequence[Manifest]) -> Self:
        """From a Workload, and from all that wait in its queue where that is known."""
        name = str(workload["metadata"]["name"])
        conditions = {item["type"]: item for item in (workload.get("status") or {}).get("conditions") or ()}
        reserved, evicted, finished = (conditions.get(type_, {}) for type_ in ("QuotaReserved", "Evicted", "Finished"))
        has_quota = reserved.get("status") == "True"
        word = conditions.get("Admitted", {}) if has_quota else reserved
        place = next((item for item in pending if item["metadata"]["name"] == name), None)
        return cls(
            workload=name,
            active=(workload.get("spec") or {}).get("active", True) is not False,
            reason="QuotaReserved" if has_quota else str(word.get("reason", "")),
            message=str(word.get("message", "")),
            given_up=str(finished.get("message", "")) if finished.get("status") == "True" else "",
            evicted=f"{evicted.get('reason')}: {evicted.get('message')}" if evicted.get("status") == "True" else "",
            position=_rounded(int(place["positionInLocalQueue"]) + 1) if place else None,
            waiting=_rounded(len(pending)) if place else None,
        )


def _rounded(number: int) -> int:
    return number if number <= EXACT else -(-number // 10) * 10


def waits_for(job: Manifest, admission: Admission | None, now: datetime) -> Trouble | None:
    """Why a Job is held back; None if it is not."""
    if not is_suspended(job) or finished_at(job) is not None:
        return None
    queue = label_of(job, LABEL_QUEUE)
    if not queue:
        message = (
            f"Job {name_of(job)} is suspended and names no queue: where Kueue manages every Job of a namespace, "
            "it needs a LocalQueue called 'default' there"
        )
        return Trouble("Suspended", message)
    if admission is None:
        return Trouble("Queued", f"waiting in queue {queue}")
    return _words(job, queue, admission, now)


def patience_ends(job: Manifest, now: datetime) -> datetime | None:
    """When a Job that Kueue does not take up is said to be in trouble; None if that is over."""
    ends = datetime.fromisoformat(job["metadata"]["creationTimestamp"]) + PATIENCE
    return ends if ends > now else None


def _words(job: Manifest, queue: str, admission: Admission, now: datetime) -> Trouble:
    """What Kueue says, and where it is a person's turn, what to do."""
    if not admission.installed:
        message = (
            f"spec.scheduling.queueName: {queue} cannot admit the job, as this cluster has no Kueue "
            "(the API server knows no kueue.x-k8s.io/v1beta2); install Kueue 0.15 or newer, or remove the field"
        )
        return Trouble("KueueNotInstalled", message)
    if admission.workload is None:
        if patience_ends(job, now):
            return Trouble("Queued", f"waiting in queue {queue}")
        return Trouble("NoWorkload", f"Kueue has not taken up Job {name_of(job)}: {_doubts(job)}")
    if not admission.active:
        message = (
            f"Kueue has deactivated Workload {admission.workload}{_in_brackets(admission.evicted)}; activate it: "
            f'kubectl patch workload {admission.workload} --type=merge -p \'{{"spec":{{"active":true}}}}\''
        )
        return Trouble("Deactivated", message)
    if admission.given_up:
        words = f"Kueue has given up Workload {admission.workload}{_in_brackets(admission.given_up)}"
        return Trouble("GivenUp", f"{words}; have the job queued anew: kubectl delete job {name_of(job)}")
    message = admission.message
    if admission.reason == "Inadmissible" and label_of(job, LABEL_QUEUE) in message:
        message = f"spec.scheduling.queueName: {message}; create it, or name another"
    if admission.position:
        place = f"{ordinal(admission.position)} of {admission.waiting} in queue {queue}"
        message = f"{place}: {message}" if message else place
    if admission.evicted:
        # Last, as it is long.
        message += f"; preempted by Kueue, resumes from its checkpoint{_in_brackets(admission.evicted)}"
    return Trouble(admission.reason or "Queued", message[:MESSAGE_LIMIT] or f"waiting in queue {queue}")


def _doubts(job: Manifest) -> str:
    doubts = "check that it manages Jobs in this namespace"
    priority = label_of(job, LABEL_QUEUE_PRIORITY)
    if priority:
        doubts += f", and that there is a WorkloadPriorityClass {priority} (spec.scheduling.queuePriority)"
    return doubts


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
