"""Names, labels and owner references of child objects: always valid, never colliding."""

import hashlib
from typing import Any

from finetune_operator.api.base import GROUP, VERSION

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "finetune-operator"
"""Value of app.kubernetes.io/managed-by on every child, field manager of every write."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_KIND = f"{GROUP}/kind"
LABEL_NAME = f"{GROUP}/name"
LABEL_ROLE = f"{GROUP}/role"
LABEL_RUN = f"{GROUP}/run"
LABEL_ATTEMPT = f"{GROUP}/attempt"

ANNOTATION_STORE = f"{GROUP}/store-uri"
"""On the ConfigMap that stands for a store in S3: its address."""

ROLE_STORE = "store"
"""Value of LABEL_ROLE on what stands for a store: a claim that we have made, or a ConfigMap where there is none."""

LABEL_STORE = f"{GROUP}/store"
"""On pods, where the store is not the default one: which claim, or `s3`."""

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
"""Kueue's labels on a Job: the LocalQueue, the WorkloadPriorityClass."""

ANNOTATION_GENERATION = f"{GROUP}/generation"
"""On every child: the generation of the owner's spec that it was built from."""

ANNOTATION_ACCELERATORS = f"{GROUP}/accelerators"
"""On training Jobs: how many accelerators each of their pods has."""

ANNOTATION_PRICE = f"{GROUP}/price-per-hour"
"""On training Jobs: what the accelerators of one of their pods cost for an hour, by the price list of that time."""

ANNOTATION_CONTENT = f"{GROUP}/content"
"""On a Job that is queued: digest of what it and its plan say, to tell whether an edit concerns it."""

MAX_NAME = 63
"""A Job's name becomes a label value and a host name."""


def child_name(owner: str, *parts: str, limit: int = MAX_NAME) -> str:
    """`owner-part-part`, cut and made unique by a hash where it would be longer than `limit` characters."""
    suffix = "-".join(parts)
    name = f"{owner}-{suffix}"
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{owner[: limit - len(suffix) - 10].rstrip('-.')}-{digest}-{suffix}"


def labels(kind: str, name: str, role: str, **more: str) -> dict[str, str]:
    """The labels that make an object a child of ours; the owner's name is a label value too."""
    return {
        LABEL_MANAGED_BY: MANAGER,
        LABEL_KIND: kind,
        LABEL_NAME: name,
        LABEL_ROLE: role,
        **{f"{GROUP}/{key}": value for key, value in more.items()},
    }


def owner_reference(kind: str, name: str, uid: str) -> dict[str, Any]:
    """Makes the garbage collector delete a child with its owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
