"""The claim of a namespace that holds datasets, models, checkpoints and artifacts."""

from finetune_operator.manifests.naming import LABEL_MANAGED_BY, MANAGER, Manifest
from finetune_operator.settings import Settings

MANY_NODES = "ReadWriteMany"


def kept_together(settings: Settings) -> Manifest:
    """Where a pod of ours may run: beside the others of its namespace, if their claim can be on one node at a time.

    Kubernetes itself would let a second pod be placed on another node, to wait there for the volume without end. The
    first pod may go anywhere (the scheduler sees that it matches its own term), and pods that have ended do not count.
    """
    if settings.claim_access_mode == MANY_NODES:
        return {}
    term = {
        "labelSelector": {"matchLabels": {LABEL_MANAGED_BY: MANAGER}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def claim(namespace: str, settings: Settings) -> Manifest:
    """The default claim. It has no owner: what is stored outlives the objects that made it."""
    spec: Manifest = {
        "accessModes": [settings.claim_access_mode],
        "resources": {"requests": {"storage": settings.claim_size}},
    }
    if settings.claim_storage_class:
        spec["storageClassName"] = settings.claim_storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": settings.claim_name,
            "namespace": namespace,
            "labels": {LABEL_MANAGED_BY: MANAGER},
        },
        "spec": spec,
    }
