"""The pods of one attempt of several ranks: which are there, and whose end explains the others'."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.manifests import multinode
from finetune_operator.manifests.naming import Manifest

_PEER_LOST = policy_of(FailureReason.NCCL_TIMEOUT).exit_code


def newest_of_each(pods: Sequence[Manifest]) -> list[Manifest]:
    """The newest pod of each index, in the order of the indexes; of a plain Job, the newest."""
    newest = {_index_of(pod): pod for pod in pods}
    return [newest[index] for index in sorted(newest)]


def are_missing(job: Manifest, newest: Sequence[Manifest]) -> bool:
    """Whether the Job has fewer pods than it should."""
    return len(newest) < int((job.get("spec") or {}).get("parallelism") or 1)


Failed = tuple[Manifest, dict[str, object] | None, Failure]
"""A pod, how its container terminated if that was seen, and the cause as Kubernetes tells it."""


def first_failed(failed: Iterable[Failed]) -> Manifest | None:
    """The pod whose end explains the others': the earliest that is no mere consequence of another's."""

    def key(entry: Failed) -> tuple[int, datetime, bool]:
        pod, terminated, _ = entry
        return _consequence(entry), _ended_at(pod, terminated), _exit_code(terminated) == _PEER_LOST

    return min(((key(entry), entry[0]) for entry in failed), key=lambda pair: pair[0], default=(None, None))[1]


def _consequence(failed: Failed) -> int:
    """How likely a pod only followed another: 0 by no means, 1 perhaps, 2 surely."""
    pod, terminated, failure = failed
    status = pod.get("status") or {}
    if any(each["type"] == "DisruptionTarget" and each["status"] == "True" for each in status.get("conditions") or ()):
        return 0
    if status.get("phase") == "Pending":
        return 2  # it never ran: it was deleted because the others gave up waiting for it
    # A Job that fails tells its other pods to stop, and deletes them.
    follows = failure.reason in (FailureReason.PREEMPTED, FailureReason.POD_DELETED)
    return int(follows or _exit_code(terminated) == _PEER_LOST)


def _exit_code(terminated: dict[str, object] | None) -> object:
    return (terminated or {}).get("exitCode")


def _ended_at(pod: Manifest, terminated: dict[str, object] | None) -> datetime:
    said = (terminated or {}).get("finishedAt") or pod["metadata"].get("deletionTimestamp")
    return datetime.fromisoformat(str(said)) if said else datetime.max.replace(tzinfo=UTC)


def _index_of(pod: Manifest) -> int:
    text = str((pod["metadata"].get("labels") or {}).get(multinode.INDEX, "0"))
    return int(text) if text.isascii() and text.isdigit() else 0
