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


def first_failed(failed: Iterable[tuple[Manifest, dict[str, object] | None, Failure]]) -> Manifest | None:
    """The pod whose end explains the others': the earliest that did not merely lose its peers.

    Args:
        failed: Pods, how their container terminated if that was seen, and the cause.
    """

    def key(entry: tuple[Manifest, dict[str, object] | None, Failure]) -> tuple[bool, datetime, bool]:
        pod, terminated, failure = entry
        only_lost_peers = bool(terminated) and (terminated or {}).get("exitCode") == _PEER_LOST
        # What is only a second apart, or less: a crash explains a pod that was told to stop, never the reverse.
        return only_lost_peers, _ended_at(pod, terminated), not policy_of(failure.reason).counts

    return min(((key(entry), entry[0]) for entry in failed), key=lambda pair: pair[0], default=(None, None))[1]


def _ended_at(pod: Manifest, terminated: dict[str, object] | None) -> datetime:
    said = (terminated or {}).get("finishedAt") or pod["metadata"].get("deletionTimestamp")
    return datetime.fromisoformat(str(said)) if said else datetime.max.replace(tzinfo=UTC)


def _index_of(pod: Manifest) -> int:
    text = str((pod["metadata"].get("labels") or {}).get(multinode.INDEX, "0"))
    return int(text) if text.isascii() and text.isdigit() else 0
