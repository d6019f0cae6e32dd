"""The store of an object, as its pods get it: a claim of the namespace, or a prefix of a bucket."""

import hashlib

from finetune_contract.paths import ENV_STORE
from finetune_contract.storage import S3Location, StorePlan
from finetune_operator.manifests import pods
from finetune_operator.manifests.naming import (
    ANNOTATION_STORE,
    LABEL_MANAGED_BY,
    LABEL_ROLE,
    LABEL_STORE,
    MANAGER,
    ROLE_STORE,
    Manifest,
)
from finetune_operator.settings import Settings

MANY_NODES = "ReadWriteMany"


def plan_of(settings: Settings) -> StorePlan:
    """Where a pod finds the store, as every plan says it."""
    if settings.s3_uri is None:
        return StorePlan(claim=settings.claim_name)
    return StorePlan(s3=S3Location(uri=settings.s3_uri, endpoint=settings.s3_endpoint, region=settings.s3_region))


def volume(settings: Settings, *, read_only: bool = False) -> Manifest:
    """The volume named `store`: the claim, or room for copies on the node's disk."""
    if settings.s3_uri is None:
        return pods.claim_volume("store", settings.claim_name, read_only=read_only)
    return {"name": "store", "emptyDir": {}}


def claim_name(settings: Settings) -> str:
    """The claim that pods mount as their store; empty where there is none."""
    return settings.claim_name if settings.s3_uri is None else ""


def credentials(settings: Settings) -> list[Manifest]:
    """The `envFrom` of a container that talks to the store."""
    if settings.s3_uri is None or settings.s3_secret is None:
        return []
    return [{"prefix": ENV_STORE, "secretRef": {"name": settings.s3_secret}}]


def access(settings: Settings) -> Manifest:
    """What a container that talks to the store has beside its mounts."""
    found = credentials(settings)
    return {"envFrom": found} if found else {}


def mark(settings: Settings) -> dict[str, str]:
    """What tells the pods of this store from those of the default one, for `labels`."""
    return {"store": settings.store_label} if settings.store_label else {}


def kept_together(settings: Settings) -> Manifest:
    """Where a pod of ours may run: beside the others with its claim, if that can be on one node at a time.

    Kubernetes itself would let a second pod be placed on another node, to wait there for the volume without end. The
    first pod may go anywhere (the scheduler sees that it matches its own term), and pods that have ended do not count.
    """
    if settings.s3_uri is not None or settings.claim_access_mode == MANY_NODES:
        return {}
    selector: Manifest = {"matchLabels": {LABEL_MANAGED_BY: MANAGER}}
    if settings.store_label:
        selector["matchLabels"][LABEL_STORE] = settings.store_label
    else:
        selector["matchExpressions"] = [{"key": LABEL_STORE, "operator": "DoesNotExist"}]
    term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def record_name(settings: Settings) -> str:
    """The ConfigMap that stands for a store in S3."""
    return f"finetune-store-{hashlib.sha256(str(settings.s3_uri).encode()).hexdigest()[:8]}"


def record(namespace: str, settings: Settings) -> Manifest:
    """What a claim is for a store on a volume: something in the namespace that its collections belong to."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(settings),
            "namespace": namespace,
            "labels": {LABEL_MANAGED_BY: MANAGER, LABEL_ROLE: ROLE_STORE},
            "annotations": {ANNOTATION_STORE: str(settings.s3_uri)},
        },
    }


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
            "labels": {LABEL_MANAGED_BY: MANAGER, LABEL_ROLE: ROLE_STORE},
        },
        "spec": spec,
    }
