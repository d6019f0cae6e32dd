"""Attempts of several ranks: what keeps one from being made, whose end explains the others', what is left behind."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.plans import ShardingStrategy
from finetune_operator.api.finetunejob import AdapterType, FineTuneJob
from finetune_operator.manifests import multinode
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName

_PEER_LOST = policy_of(FailureReason.NCCL_TIMEOUT).exit_code


def refusal(job: FineTuneJob, observed: Observed) -> Failure | None:
    """Why no attempt can be made with these ranks; the first of the checks that finds something."""
    return batch_too_small(job) or adapter_divided(job) or storage_for_one_node(job, observed)


def batch_too_small(job: FineTuneJob) -> Failure | None:
    """Ranks that would have nothing to do."""
    nodes, batch = job.spec.parallelism.nodes, job.spec.hyperparameters.global_batch_size
    ranks = nodes * multinode.processes(job.spec.resources)
    if batch >= ranks:
        return None
    return Failure(
        reason=FailureReason.INVALID_PLAN,
        message=f"spec.hyperparameters.globalBatchSize: {batch} sequences cannot be divided among {ranks} ranks; "
        f"use at least {ranks}, or fewer spec.parallelism.nodes or GPUs",
    )


def adapter_divided(job: FineTuneJob) -> Failure | None:
    """FSDP for an adapter, whose states are small."""
    is_adapter = job.spec.adapter.type is not AdapterType.NONE
    if not is_adapter or job.spec.parallelism.strategy is not ShardingStrategy.FSDP:
        return None
    return Failure(
        reason=FailureReason.INVALID_PLAN,
        message="spec.parallelism.strategy: FSDP divides a model that is trained as a whole; "
        "use Auto or DDP, or spec.adapter.type None",
    )


def storage_for_one_node(job: FineTuneJob, observed: Observed) -> Failure | None:
    """A claim that only one node can mount."""
    if job.spec.parallelism.nodes == 1:
        return None
    name = observed.settings.claim_name
    claim = observed.references.get(Reference("PersistentVolumeClaim", name))
    modes = ((claim or {}).get("spec") or {}).get("accessModes") or [observed.settings.claim_access_mode]
    if "ReadWriteMany" in modes:
        return None
    return Failure(
        reason=FailureReason.STORAGE_UNAVAILABLE,
        message=f"spec.parallelism.nodes: {job.spec.parallelism.nodes} pods share the claim {name!r}, which is "
        f"{', '.join(modes)}; use 1, or a claim that is ReadWriteMany (chart value storage.accessMode)",
    )


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


def idle_services(observed: Observed, wanted: Iterable[Manifest]) -> tuple[ChildName, ...]:
    """Services of attempts that are over: neither is their Job still at work, nor is it about to be created."""
    used = {str(manifest["metadata"]["name"]) for manifest in wanted}
    used |= {str(job["metadata"]["name"]) for job in observed.of("Job") if not _is_finished(job)}
    return tuple(
        ChildName("Service", str(item["metadata"]["name"]), str(item["metadata"]["uid"]))
        for item in observed.of("Service")
        if item["metadata"]["name"] not in used and not item["metadata"].get("deletionTimestamp")
    )


def _is_finished(job: Manifest) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
