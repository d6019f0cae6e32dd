"""What every pod of ours has in common: Pod Security `restricted`, no API token, read-only root, scratch space."""

from typing import Any

from finetune_contract.paths import (
    ENV_POD_UID,
    PLAN_DIRECTORY,
    POD_PORT,
    SCRATCH_MOUNT,
    SOURCE_MOUNT,
    STORE_MOUNT,
    TERMINATION_LOG,
)
from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.manifests.naming import Manifest

USER = 65532
"""The images' non-root user; fsGroup lets it write to volumes."""

RETENTION_EXIT_GRACE = 30
"""Default grace period of pods that have nothing to save."""

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
OFFLINE = {OFFLINE_VARIABLE: "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Training and serving pods never download or report anything."""


def container(
    name: str,
    image: str,
    command: list[str],
    *,
    pull_policy: str,
    resources: Resources | None = None,
    env: dict[str, str] | None = None,
    extra_env: tuple[dict[str, Any], ...] = (),
    mounts: tuple[dict[str, Any], ...] = (),
    **more: Any,  # noqa: ANN401 - further fields of a container, as in the Kubernetes API
) -> Manifest:
    """A container that passes Pod Security `restricted`."""
    variables = {"TMPDIR": str(SCRATCH_MOUNT), "HOME": str(SCRATCH_MOUNT), **(env or {})}
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": command,
        "env": [
            {"name": ENV_POD_UID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            *({"name": key, "value": value} for key, value in variables.items()),
            *extra_env,
        ],
        "resources": resources.to_dict() if resources else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": str(TERMINATION_LOG),
        # The last log lines of a process that died without a word; a result document is never overwritten by it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "scratch", "mountPath": str(SCRATCH_MOUNT)}, *mounts],
        **more,
    }


def pod_spec(
    containers: list[Manifest],
    volumes: list[Manifest],
    scheduling: Scheduling,
    **more: Any,  # noqa: ANN401 - further fields of a PodSpec
) -> Manifest:
    """A pod that passes Pod Security `restricted` and gets no API token."""
    place = scheduling.to_dict()
    spec: Manifest = {
        "automountServiceAccountToken": False,
        # Service variables of the namespace could change what libraries do (MASTER_PORT, PROMETHEUS_PORT).
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": RETENTION_EXIT_GRACE,
        **more,
        "containers": containers,
        "volumes": [{"name": "scratch", "emptyDir": {}}, *volumes],
    }
    for field in ("nodeSelector", "tolerations", "priorityClassName"):
        if place.get(field):
            spec[field] = place[field]
    return spec


def plan_volume(config_map: str) -> Manifest:
    """The plan's ConfigMap."""
    return {"name": "plan", "configMap": {"name": config_map}}


def claim_volume(name: str, claim: str, *, read_only: bool = False) -> Manifest:
    """A PersistentVolumeClaim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, **({"readOnly": True} if read_only else {})}}


def shared_memory(size: int | str) -> Manifest:
    """What /dev/shm is made of: the runtime's own has 64 MiB, too little for processes that share tensors."""
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}


SHARED_MEMORY: Manifest = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - the mount point
PLAN_MOUNT: Manifest = {"name": "plan", "mountPath": str(PLAN_DIRECTORY), "readOnly": True}
STORE: Manifest = {"name": "store", "mountPath": str(STORE_MOUNT)}
STORE_READ_ONLY: Manifest = {**STORE, "readOnly": True}
SOURCE: Manifest = {"name": "source", "mountPath": str(SOURCE_MOUNT), "readOnly": True}


def source_claim(claim: str, store: str) -> tuple[list[Manifest], Manifest]:
    """A user's claim as the volumes and the mount of a pod that has the store's volume.

    Where the claim is the store's own, that volume is mounted twice: for a pod that names one claim in two volumes the
    kubelet waits without end, and says nothing.
    """
    if claim == store:
        return [], {**STORE_READ_ONLY, "mountPath": str(SOURCE_MOUNT)}
    return [claim_volume("source", claim, read_only=True)], SOURCE


def ports(port: int = POD_PORT) -> list[Manifest]:
    """The pod's one named port."""
    return [{"name": "http", "containerPort": port}]
