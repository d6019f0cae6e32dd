"""The claim of a namespace that holds datasets, models, checkpoints and artifacts."""

from finetune_operator.manifests.naming import LABEL_MANAGED_BY, MANAGER, Manifest
from finetune_operator.settings import Settings


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
