"""How far the Deployment of a ModelDeployment is in serving the present plan."""

from finetune_contract.proof import AdapterProof, ProofState
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import serving
from finetune_operator.manifests.naming import LABEL_ROLE, Manifest
from finetune_operator.reconcile.endings import generation_of, label_of, name_of
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import ChildName
from finetune_operator.reconcile.resources import child
from finetune_operator.reconcile.troubles import POD_STARTING, Trouble, pod_trouble, refusal, stable


def child_of(deployment: ModelDeployment, observed: Observed) -> Manifest | None:
    """The Deployment, if it is there."""
    name = deployment.metadata.name
    return next((item for item in observed.of("Deployment") if name_of(item) == name), None)


def is_done(item: Manifest, config_map: str, deployment: ModelDeployment) -> bool:
    """Whether every pod that the present spec wants is there, serves the plan and is ready, and no other is left."""
    status, replicas = item.get("status") or {}, deployment.spec.replicas
    generation = deployment.metadata.generation
    return (
        label_of(item, serving.LABEL_PLAN) == config_map[-8:]
        and generation_of(item, generation) == generation
        and status.get("observedGeneration", 0) >= item["metadata"].get("generation", 1)
        and status.get("replicas", 0) == replicas
        and status.get("updatedReplicas", 0) == replicas
        and status.get("readyReplicas", 0) == replicas
    )


def ready_replicas(item: Manifest | None) -> int:
    """Pods that are proven and ready."""
    return int(((item or {}).get("status") or {}).get("readyReplicas", 0))


def hindrance(observed: Observed) -> Trouble:
    """What a roll-out waits for."""
    for item in observed.of("Deployment"):
        for condition in (item.get("status") or {}).get("conditions") or ():
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                words = stable(str(condition.get("message", "")))
                return Trouble(refusal(words), f"a pod was refused: {words}")
    for pod in observed.of("Pod"):
        trouble = None if pod["metadata"].get("deletionTimestamp") else pod_trouble(pod, observed.reports)
        # Old pods run while new ones start: naming that would have the reason go back and forth in every roll-out.
        if trouble and trouble.reason != POD_STARTING:
            return Trouble(trouble.reason, f"pod {name_of(pod)}: {trouble.message}")
    return Trouble("Proving", "pods are loading the model and proving the adapters")


def unproven(observed: Observed) -> dict[tuple[str, str], AdapterProof]:
    """Name and digest -> what a prober says of an adapter whose proof has failed."""
    return {
        (proof.name, proof.digest): proof
        for status in observed.proofs.values()
        for proof in status.adapters
        if proof.state in (ProofState.INERT, ProofState.INVALID)
    }


def old_plans(observed: Observed, config_map: str) -> tuple[ChildName, ...]:
    """Plans that no pod serves any more."""
    return tuple(
        child("ConfigMap", item)
        for item in observed.of("ConfigMap")
        if label_of(item, LABEL_ROLE) == serving.ROLE
        and name_of(item) != config_map
        and not item["metadata"].get("deletionTimestamp")
    )
