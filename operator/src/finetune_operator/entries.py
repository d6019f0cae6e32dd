"""One cached object: what is kept of it, slimmed, and the facts that the cache's indexes are made of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from finetune_operator.api.base import GROUP
from finetune_operator.api.gate import GATE_IGNORED
from finetune_operator.cluster import CHILD_KINDS, OWN_KINDS, RESOURCES, controller_uid
from finetune_operator.manifests import multinode
from finetune_operator.manifests.naming import LABEL_KIND, LABEL_NAME, LABEL_QUEUE, LABEL_ROLE, Manifest
from finetune_operator.manifests.serving import CANARY_ROLE, SERVING_ROLES
from finetune_operator.packing import pack, unpack

KUBECTL_COPY = "kubectl.kubernetes.io/last-applied-configuration"
METADATA = (
    "name", "namespace", "uid", "labels", "ownerReferences", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp",
)  # fmt: skip
SPEC: Mapping[str, tuple[str, ...]] = {
    "Pod": ("nodeName",),
    "Job": ("suspend", "parallelism", "backoffLimit"),
    "Deployment": ("replicas",),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeName"),
}
"""Fields of a child's spec that are kept."""

APPLIED_KINDS = frozenset(kind for kind in CHILD_KINDS if "patch" in RESOURCES[kind].verbs)
"""Children that are applied again when somebody edits them; the others are created once and never changed."""


class Key(NamedTuple):
    """One of our resources: what the queue holds."""

    kind: str
    namespace: str
    name: str


class Place(NamedTuple):
    """Where an object is: at most one is there at a time."""

    kind: str
    namespace: str
    name: str


@dataclass(slots=True)
class Entry:
    """One cached object."""

    place: Place
    uid: str
    version: int
    owner: Key | None
    """The resource that a child's labels name."""
    controller: str | None
    """Uid of the controlling owner: of our resource, or of the Job or ReplicaSet of a Pod."""
    created: str
    packed: bytes
    content: str = ""
    """Digest of an applied child's spec as the server has it: changes when anybody edits the child."""
    summary: tuple[str, str] | None = None
    """Phase and reason of one of our resources, for metrics."""
    changed_at: float = 0.0
    """When a condition of it last changed, in seconds since 1970."""
    ignores_gate: bool = False
    """A ModelDeployment that serves what has passed no gate."""
    adapters: tuple[str, ...] = ()
    """States of a ModelDeployment's adapters."""
    is_edited: bool = False
    """One of our resources whose status does not speak of its present spec."""
    address: str | None = None
    """IP of a training or batch pod that runs."""
    unproven: str | None = None
    """IP of a serving pod that runs and is not ready."""
    canary: str | None = None
    """IP of a canary pod that runs."""
    queue: str | None = None
    """The Kueue queue that a suspended Job waits in."""
    gone: bool = False
    """A tombstone: a deleted Pod whose termination message is still wanted."""

    def load(self) -> Manifest:
        """A copy of the object."""
        return dict(unpack(self.packed))


class RunningPod(NamedTuple):
    """A running pod that is asked how far it is."""

    uid: str
    created: str
    key: Key
    address: str


class QueuedJob(NamedTuple):
    """A Job that waits in a Kueue queue."""

    uid: str
    key: Key
    queue: str


def entry_of(manifest: Manifest, version: int) -> Entry:
    """The entry of an object as a watch, a list or an answer to a write shows it."""
    metadata = manifest["metadata"]
    kind, namespace, labels = str(manifest["kind"]), str(metadata["namespace"]), metadata.get("labels") or {}
    place = Place(kind, namespace, str(metadata["name"]))
    is_ours = kind in OWN_KINDS
    named = LABEL_KIND in labels and LABEL_NAME in labels
    return Entry(
        place=place,
        uid=str(metadata["uid"]),
        version=version,
        owner=Key(labels[LABEL_KIND], namespace, labels[LABEL_NAME]) if named and not is_ours else None,
        controller=controller_uid(manifest),
        created=str(metadata.get("creationTimestamp", "")),
        packed=pack(_without_bookkeeping(manifest) if is_ours else slim(manifest)),
        content=digest({"spec": manifest.get("spec")}) if kind in APPLIED_KINDS else "",
        summary=_summary(manifest) if is_ours else None,
        changed_at=_changed_at(manifest) if is_ours else 0.0,
        ignores_gate=kind == "ModelDeployment" and _holds(manifest, GATE_IGNORED),
        adapters=_adapter_states(manifest) if kind == "ModelDeployment" else (),
        is_edited=is_ours and metadata.get("generation") != (manifest.get("status") or {}).get("observedGeneration"),
        address=_training_address(manifest, labels) if kind == "Pod" else None,
        unproven=_unproven_address(manifest, labels) if kind == "Pod" else None,
        canary=_running_address(manifest) if kind == "Pod" and labels.get(LABEL_ROLE) == CANARY_ROLE else None,
        queue=labels.get(LABEL_QUEUE) if kind == "Job" and manifest["spec"].get("suspend") else None,
    )


def _without_bookkeeping(manifest: Manifest) -> Manifest:
    """One of our resources without what doubles its size: the history of its fields and kubectl's copy of it."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {name: value for name, value in annotations.items() if name != KUBECTL_COPY}
    return {**manifest, "metadata": metadata}


def slim(manifest: Manifest) -> Manifest:
    """What a reconcile needs of a child."""
    metadata = {name: manifest["metadata"][name] for name in METADATA if name in manifest["metadata"]}
    annotations = manifest["metadata"].get("annotations") or {}
    ours = {name: value for name, value in annotations.items() if name.startswith(f"{GROUP}/")}
    if ours:
        metadata["annotations"] = ours
    kept: Manifest = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}
    spec = {name: manifest["spec"][name] for name in SPEC.get(manifest["kind"], ()) if name in manifest["spec"]}
    if spec:
        kept["spec"] = spec
    if "status" in manifest:
        kept["status"] = manifest["status"]
    return kept


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON
    """A short digest of any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _summary(manifest: Manifest) -> tuple[str, str]:
    status = manifest.get("status") or {}
    conditions = status.get("conditions") or ()
    reasons = (str(condition.get("reason", "")) for condition in conditions if condition.get("type") == "Ready")
    return str(status.get("phase", "")), next(reasons, "")


def _changed_at(manifest: Manifest) -> float:
    """Of a resource without conditions: when it was created."""
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    times = [str(condition.get("lastTransitionTime", "")) for condition in conditions]
    # All are in UTC and to the second, as the operator and the API server write them: the last is the greatest.
    last = max(times, default="") or str(manifest["metadata"].get("creationTimestamp", ""))
    return datetime.fromisoformat(last).timestamp() if last else 0.0


def _adapter_states(manifest: Manifest) -> tuple[str, ...]:
    return tuple(str(each.get("state", "")) for each in (manifest.get("status") or {}).get("adapters") or ())


def _holds(manifest: Manifest, type_: str) -> bool:
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    return any(condition.get("type") == type_ and condition.get("status") == "True" for condition in conditions)


def _training_address(pod: Manifest, labels: Mapping[str, str]) -> str | None:
    # Of several ranks the first knows how far all are.
    is_asked = labels.get(LABEL_ROLE) in ("train", "batch") and labels.get(multinode.INDEX, "0") == "0"
    return _running_address(pod) if is_asked else None


def _unproven_address(pod: Manifest, labels: Mapping[str, str]) -> str | None:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return _running_address(pod) if labels.get(LABEL_ROLE) in SERVING_ROLES and not is_ready else None


def _running_address(pod: Manifest) -> str | None:
    status = pod.get("status") or {}
    if status.get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
        return None
    return status.get("podIP")
