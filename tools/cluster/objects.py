"""What a new cluster gets before anybody uses it: storage, GPUs, and a ready node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.cluster.settings import GPUS, NODE, STORAGE_CLASS, STORAGE_NAMESPACE, Layout
from tools.console import StepError, output_of, wait_until

NODE_SECONDS = 60.0


class Kubectl:
    """kubectl with the cluster's admin credentials."""

    def __init__(self, layout: Layout, kubernetes: Path) -> None:
        self._argv = [str(kubernetes / "kubectl"), f"--kubeconfig={layout.admin_kubeconfig}"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """The command's output. Raises `StepError`."""
        return output_of([*self._argv, *arguments], stdin=stdin)

    def answers(self, *arguments: str) -> str:
        """The command's output; empty when it fails."""
        done = subprocess.run([*self._argv, *arguments], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""


def storage() -> Sequence[dict[str, Any]]:
    """The default StorageClass, for ReadWriteOnce and ReadWriteMany claims, and the namespace of its helper pods."""
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORAGE_NAMESPACE}},
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "rancher.io/local-path",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )


def apply(kubectl: Kubectl) -> None:
    """Create or update the objects of a new cluster."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(storage())}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))


def node(kubectl: Kubectl) -> dict[str, Any]:
    """The node as the API server knows it; empty when it does not."""
    text = kubectl.answers("get", "node", NODE, "--output=json")
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def is_ready(node: dict[str, Any]) -> bool:
    """Whether the node takes pods."""
    conditions = node.get("status", {}).get("conditions", [])
    tainted = any(taint["effect"] == "NoSchedule" for taint in node.get("spec", {}).get("taints", []))
    return not tainted and any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def has_gpus(node: dict[str, Any]) -> bool:
    """Whether pods that ask for GPUs can be placed on the node."""
    status = node.get("status", {})
    return all(status.get(kind, {}).get("nvidia.com/gpu") == str(GPUS) for kind in ("capacity", "allocatable"))


def advertise_gpus(kubectl: Kubectl) -> None:
    """Make the node advertise GPUs that do not exist. A kubelet that lost its state takes them away again."""
    path = "nvidia.com~1gpu"
    patch = [
        {"op": "add", "path": f"/status/{kind}/{path}", "value": str(GPUS)} for kind in ("capacity", "allocatable")
    ]
    kubectl("patch", "node", NODE, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")


def ensure_node(kubectl: Kubectl) -> None:
    """Wait until the node is ready and has its GPUs. Raises `StepError` with the node's conditions."""

    def ready_with_gpus() -> bool:
        current = node(kubectl)
        if is_ready(current) and not has_gpus(current):
            advertise_gpus(kubectl)
            return False
        return is_ready(current)

    if not wait_until(ready_with_gpus, NODE_SECONDS, interval=0.25, step="waiting for the node"):
        conditions = json.dumps(node(kubectl).get("status", {}).get("conditions", []), indent=2)
        raise StepError(f"node {NODE}: not ready after {NODE_SECONDS:.0f} s; its conditions:\n{conditions}")


def ensure_service_account(kubectl: Kubectl) -> None:
    """The default service account appears a moment after its namespace; pods made before that are refused."""
    if not wait_until(lambda: bool(kubectl.answers("get", "serviceaccount", "default", "-n", "default")), 30):
        raise StepError("kube-controller-manager made no service account in namespace default within 30 s")
