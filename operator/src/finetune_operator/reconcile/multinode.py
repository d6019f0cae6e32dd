"""Attempts of several ranks: what keeps one from being made, and what is left behind."""

from collections.abc import Iterable

from finetune_contract.failure import Failure, FailureReason
from finetune_contract.methods import not_divided, one_process_only
from finetune_contract.training import ShardingStrategy
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.training import AdapterType
from finetune_operator.manifests import multinode
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import ChildName
from finetune_operator.reconcile.storage import claim_among, refuses_many_nodes


def refusal(job: FineTuneJob, observed: Observed) -> Failure | None:
    """Why no attempt can be made with these ranks; the first of the checks that finds something."""
    return method_alone(job) or batch_too_small(job) or adapter_divided(job) or storage_for_one_node(job, observed)


def method_alone(job: FineTuneJob) -> Failure | None:
    """A method that trains in one process only, or whose model cannot be divided."""
    is_one = job.spec.parallelism.nodes * multinode.processes(job.spec.resources) == 1
    if is_one:
        return None
    message = one_process_only(job.spec.method)
    if message is None and job.spec.parallelism.strategy is ShardingStrategy.FSDP:
        message = not_divided(job.spec.method)
    return Failure(reason=FailureReason.INVALID_PLAN, message=message) if message else None


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
    refused = refuses_many_nodes(claim_among(observed.references, observed.settings), observed.settings)
    if refused is None:
        return None
    message = f"spec.parallelism.nodes: {job.spec.parallelism.nodes} pods share a store: {refused}"
    return Failure(reason=FailureReason.STORAGE_UNAVAILABLE, message=message)


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
