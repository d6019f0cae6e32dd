"""How far the Deployment of a ModelDeployment is in serving the present plan."""

from finetune_contract.failure import FailureReason
from finetune_contract.proof import AdapterProof, ProofState
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import serving
from finetune_operator.manifests.naming import LABEL_ROLE, Manifest
from finetune_operator.reconcile.endings import generation_of, label_of, name_of
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import ChildName
from finetune_operator.reconcile.resources import child
from finetune_operator.reconcile.troubles import POD_STARTING, Trouble, pod_trouble, refusal, stable


def child_of(deployment: ModelDeployment, observed: Observed, track: serving.Track = serving.MAIN) -> Manifest | None:
    """The Deployment, if it is there."""
    name = serving.name_of(deployment, track)
    return next((item for item in observed.of("Deployment") if name_of(item) == name), None)


def is_done(
    item: Manifest | None, config_map: str, deployment: ModelDeployment, track: serving.Track = serving.MAIN
) -> bool:
    """Whether every pod that the present spec wants is there, serves the plan and is ready, and no other is left."""
    if item is None:
        return False
    status, replicas = item.get("status") or {}, serving.replicas_of(deployment, track)
    if replicas is None:
        replicas = (item.get("spec") or {}).get("replicas", status.get("replicas", 0))
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
            # What ends without a name is called after what most pods do: here none trains.
            is_nameless = trouble.reason == FailureReason.TRAINER_CRASHED
            reason = FailureReason.SERVER_CRASHED.value if is_nameless else trouble.reason
            return Trouble(reason, f"pod {name_of(pod)}: {trouble.message}")
    return Trouble("Proving", "pods are loading the model and proving the adapters")


def unproven(observed: Observed, track: serving.Track = serving.MAIN) -> dict[tuple[str, str], AdapterProof]:
    """Name and digest -> what a prober of the track's pods says of an adapter whose proof has failed."""
    others = {pod["metadata"]["uid"] for pod in observed.of("Pod") if label_of(pod, LABEL_ROLE) != track.role}
    return {
        (proof.name, proof.digest): proof
        for uid, status in observed.proofs.items()
        if uid not in others
        for proof in status.adapters
        if proof.state in (ProofState.INERT, ProofState.INVALID)
    }


def pods_of(observed: Observed, track: serving.Track) -> list[Manifest]:
    """The pods of one Deployment that are not going."""
    return [
        pod
        for pod in observed.of("Pod")
        if label_of(pod, LABEL_ROLE) == track.role and not pod["metadata"].get("deletionTimestamp")
    ]


def left_over(observed: Observed, track: serving.Track) -> tuple[ChildName, ...]:
    """Deployment and Service of a track that is not wanted any more."""
    return tuple(
        child(kind, item)
        for kind in ("Deployment", "Service")
        for item in observed.of(kind)
        if label_of(item, LABEL_ROLE) == track.role and not item["metadata"].get("deletionTimestamp")
    )


def old_plans(observed: Observed, *present: str) -> tuple[ChildName, ...]:
    """Plans that no pod serves any more."""
    return tuple(
        child("ConfigMap", item)
        for item in observed.of("ConfigMap")
        if label_of(item, LABEL_ROLE) == serving.ROLE
        and name_of(item) not in present
        and not item["metadata"].get("deletionTimestamp")
    )
