"""How a Job of ours ended, or that it does not run, with a name for each cause."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from finetune_contract.failure import Failure, FailureReason
from finetune_operator.manifests.naming import ANNOTATION_GENERATION, LABEL_ATTEMPT, LABEL_ROLE, LABEL_RUN, Manifest
from finetune_operator.reconcile.ranks import are_missing, first_failed, newest_of_each
from finetune_operator.reconcile.troubles import NO_REPORTS, Reports, Trouble, failure_of_exit, pod_trouble

_DISRUPTIONS = {
    "PreemptionByScheduler": FailureReason.PREEMPTED,
    "DeletionByTaintManager": FailureReason.NODE_LOST,
    "DeletionByPodGC": FailureReason.NODE_LOST,
    "EvictionByEvictionAPI": FailureReason.EVICTED,
    "TerminationByKubelet": FailureReason.EVICTED,
}
"""Reasons of the DisruptionTarget condition (Kubernetes documentation, "Pod disruption conditions")."""

_UNSEEN = {"ContainerStatusUnknown", "Unknown"}
"""Reasons of a terminated container whose end nobody saw: the kubelet's and containerd's words after a node's crash."""

_OWN_LIMIT = ("ephemeral storage limit", "ephemeral local storage usage", "Usage of EmptyDir volume")
"""What the kubelet says of a pod that it evicts for what the pod itself has written; else the node was full."""

LAST_WORD = timedelta(seconds=15)
"""How long after a Job's end its pod's last state may take to arrive: Jobs and Pods are watched apart."""


@dataclass(frozen=True)
class Ending:
    """How a Job ended."""

    message: str
    """What the pod left: a result document, or its last log lines."""
    failure: Failure | None
    """The cause as Kubernetes tells it; None after exit code 0."""
    node: str | None = None
    seconds: int = 0


class Numbered(NamedTuple):
    """A Job of ours and its number."""

    number: int
    job: Manifest


def name_of(item: Manifest) -> str:
    """The object's name."""
    return str(item["metadata"]["name"])


def label_of(item: Manifest, label: str) -> str:
    """The value of a label, empty if there is none."""
    return str((item["metadata"].get("labels") or {}).get(label, ""))


def numbered(jobs: Iterable[Manifest], role: str, run: str) -> list[Numbered]:
    """The Jobs of one role and run, in the order of their numbers."""
    found = [
        Numbered(_whole_number(label_of(item, LABEL_ATTEMPT)), item)
        for item in jobs
        if label_of(item, LABEL_ROLE) == role and label_of(item, LABEL_RUN) == run[:16]
    ]
    return sorted(found, key=lambda entry: entry.number)


def generation_of(item: Manifest, default: int) -> int:
    """The generation of the owner's spec that an object was built from; `default` where it does not say."""
    annotations = item["metadata"].get("annotations") or {}
    return _whole_number(str(annotations.get(ANNOTATION_GENERATION, default)))


def _whole_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def pods_of(job: Manifest, pods: Iterable[Manifest]) -> list[Manifest]:
    """The Job's pods, oldest first; of two from the same second, the one that is being deleted had to make way."""
    uid = job["metadata"]["uid"]
    owned = [
        pod for pod in pods if any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())
    ]
    return sorted(owned, key=_age)


def _age(pod: Manifest) -> tuple[str, bool]:
    metadata = pod["metadata"]
    return str(metadata.get("creationTimestamp", "")), not metadata.get("deletionTimestamp")


def node_of(job: Manifest, pods: Iterable[Manifest]) -> str | None:
    """Where the Job's newest pod is."""
    own = pods_of(job, pods)
    return (own[-1].get("spec") or {}).get("nodeName") if own else None


def finished_at(job: Manifest) -> datetime | None:
    """When the Job came to an end; None while it has not."""
    end = _end_of(job)
    return datetime.fromisoformat(end["lastTransitionTime"]) if end else None


def _end_of(job: Manifest) -> Manifest | None:
    """The condition that tells of the Job's end."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] in ("Complete", "Failed") and one["status"] == "True"), None)


def _unseen(message: str) -> Ending:
    return Ending("", Failure(reason=FailureReason.UNKNOWN, message=message))


def ending_of(job: Manifest, pods: Sequence[Manifest], now: datetime) -> Ending | None:
    """How the Job ended; None while it has not, or while its pod's last state may still be on its way."""
    finished = finished_at(job)
    if finished is None:
        return None
    own = newest_of_each(pods_of(job, pods))
    all_have_ended = not are_missing(job, own) and all(has_ended(pod) for pod in own)
    if not all_have_ended and now < finished + LAST_WORD:
        return None
    if not own:
        return _unseen("its pod is gone and nobody saw how it ended")
    pod = _deciding(own)
    terminated = terminated_of(pod)
    if _has_completed(job) and (terminated is None or terminated.get("exitCode")):
        # The pod that we know is another one than that which succeeded.
        return _unseen("it has succeeded, and its pod was gone before anybody saw the result")
    node = (pod.get("spec") or {}).get("nodeName")
    if terminated is None:
        return Ending("", _without_exit(pod), node)
    failure = _cause(pod, terminated)
    # Such a pod is told to stop like a preempted one, and can say no more than that.
    is_own_disk = failure is not None and failure.reason is FailureReason.EPHEMERAL_STORAGE_FULL
    return Ending(
        message="" if is_own_disk else str(terminated.get("message") or ""),
        failure=failure,
        node=node,
        seconds=seconds_of(terminated),
    )


def _has_completed(job: Manifest) -> bool:
    end = _end_of(job)
    return end is not None and end["type"] == "Complete"


def _deciding(pods: Sequence[Manifest]) -> Manifest:
    """The pod that tells how the Job ended: of several ranks the one that failed first, else rank 0's."""
    ends = [(pod, terminated_of(pod)) for pod in pods]
    causes = [(pod, end, _cause(pod, end) if end else _without_exit(pod)) for pod, end in ends]
    return first_failed((pod, end, cause) for pod, end, cause in causes if cause) or pods[0]


def has_ended(pod: Manifest) -> bool:
    """Whether the pod's containers are over."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or terminated_of(pod) is not None


def last_word_at(job: Manifest) -> datetime | None:
    """When a Job that has ended is judged by what is known then."""
    finished = finished_at(job)
    return finished + LAST_WORD if finished else None


def trouble_of(job: Manifest, pods: Sequence[Manifest], reports: Reports = NO_REPORTS) -> Trouble | None:
    """What keeps the Job's newest pod from running; None when it runs."""
    if finished_at(job) is not None:
        return Trouble("Ending", "waiting for the pod's last word")
    if is_suspended(job):
        return Trouble("Suspended", "the Job is suspended")
    own = newest_of_each([pod for pod in pods_of(job, pods) if not pod["metadata"].get("deletionTimestamp")])
    if are_missing(job, own):
        waiting = Trouble("PodPending", "waiting for the Job controller to create the pod")
        return reports.by_uid.get(job["metadata"]["uid"], waiting)
    return next((trouble for pod in own if (trouble := pod_trouble(pod, reports))), None)


def is_suspended(job: Manifest) -> bool:
    """Whether the Job has, or is about to have, no pods until somebody lets it go on: Kueue."""
    return bool((job.get("spec") or {}).get("suspend"))


def is_outdated(job: Manifest, pods: Sequence[Manifest], generation: int) -> bool:
    """Whether the Job was built from another spec and does not run yet: one from the present spec may."""
    is_other = generation_of(job, generation) != generation
    return is_other and finished_at(job) is None and trouble_of(job, pods) is not None


def terminated_of(pod: Manifest) -> dict[str, Any] | None:
    """How the pod's container ended; None while it has not, or nobody saw it."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        terminated = (container.get("state") or {}).get("terminated")
        if terminated:
            return dict(terminated)
    return None


def _without_exit(pod: Manifest) -> Failure:
    """A pod that ended without its container being seen to end."""
    return _disruption(pod) or Failure(
        reason=FailureReason.NODE_LOST, message="the pod is gone and its container was never seen to end"
    )


def _cause(pod: Manifest, terminated: dict[str, Any]) -> Failure | None:
    code = int(terminated.get("exitCode", 0))
    if code == 0:
        return None
    if terminated.get("reason") == "OOMKilled":
        return failure_of_exit(terminated)
    disruption = _disruption(pod)
    if disruption:
        return disruption
    if terminated.get("reason") in _UNSEEN:
        return Failure(reason=FailureReason.NODE_LOST, message="the node restarted or lost the container")
    return failure_of_exit(terminated)


def _disruption(pod: Manifest) -> Failure | None:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            reason = _DISRUPTIONS.get(condition.get("reason", ""), FailureReason.EVICTED)
            return Failure(reason=reason, message=str(condition.get("message", ""))[:1000])
    if status.get("reason") == "DeadlineExceeded":
        return Failure(reason=FailureReason.DEADLINE_EXCEEDED, message=str(status.get("message", ""))[:1000])
    if status.get("reason") == "Evicted":
        words = str(status.get("message", ""))[:1000]
        own = any(sign in words for sign in _OWN_LIMIT)
        return Failure(reason=FailureReason.EPHEMERAL_STORAGE_FULL if own else FailureReason.EVICTED, message=words)
    if pod["metadata"].get("deletionTimestamp"):
        return Failure(reason=FailureReason.POD_DELETED, message="the pod was deleted while it ran")
    return None


def seconds_of(terminated: Mapping[str, Any]) -> int:
    """How long a container ran."""
    if not terminated.get("startedAt") or not terminated.get("finishedAt"):
        return 0
    start, end = (datetime.fromisoformat(terminated[key]) for key in ("startedAt", "finishedAt"))
    return max(0, int((end - start).total_seconds()))
