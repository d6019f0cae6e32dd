"""Nodes that run nothing: KWOK plays the kubelet, and pods end with the results that real ones would leave."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import yaml

from finetune_contract.base import StoredReference
from finetune_contract.datasets import DatasetResult, RowFormat
from finetune_contract.results import Artifact, ArtifactType, StageResult, TrainingResult
from finetune_operator.manifests.naming import LABEL_ROLE, LABEL_RUN
from tools import binaries
from tools.bench.operator.api import Api, Object
from tools.cluster.components import Component, flags
from tools.cluster.controlplane import ControlPlane
from tools.ports import free_port

NODES = 50
CLAIM = "finetune-artifacts"
DATASET = "tickets"
CLAIM_GIGABYTES = "100Gi"
SECONDS = {"prepare": 0.5, "stage": 1.0, "train": 2.0}
"""How long pods run, by role."""
_RUN = "@run@"


def _stored(letter: str, folder: str) -> StoredReference:
    # As hard to compress as a real one: the operator's memory is measured.
    digest = hashlib.sha256(letter.encode()).hexdigest()
    return StoredReference(digest=f"sha256:{digest}", uri=f"pvc://{CLAIM}/{folder}/{digest}")


def messages() -> dict[str, str]:
    """Role -> what its pod leaves; the run's key is in the pod's label."""
    base = _stored("b", "models")
    prepared = DatasetResult(
        revision=_stored("d", "datasets"), format=RowFormat.MESSAGES, rows_read=1000, rows_kept=1000
    )
    artifact = Artifact(**_stored("a", "artifacts").model_dump(), type=ArtifactType.ADAPTER, bytes=1000, base=base)
    trained = TrainingResult(run_key=_RUN, attempt=1, artifact=artifact, step=100, total_steps=100, train_loss=1.5)
    return {
        "prepare": prepared.to_json(),
        "stage": StageResult(base=base, revision="c0ffee", run_key=_RUN).to_json(),
        "train": trained.to_json(),
    }


def _pod_stage(name: str, role: str | None, phase: str, template: str, seconds: float) -> Object:
    selector: Object = {
        "matchExpressions": [
            {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
            {"key": ".status.phase", "operator": "In", "values": [phase]},
        ]
    }
    if role:
        selector["matchLabels"] = {LABEL_ROLE: role}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": selector,
            "delay": {"durationMilliseconds": int(1000 * seconds)},
            "next": {"statusTemplate": template},
        },
    }


_RUNNING = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
podIP: 127.0.0.1
conditions:
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""
_ENDED = """
{{ $now := Now }}
{{ $run := index .metadata.labels "LABEL" }}
{{ $started := .status.startTime }}
phase: Succeeded
conditions:
- {type: Ready, status: "False", lastTransitionTime: {{ $now | Quote }}, reason: PodCompleted}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $started | Quote }}
      finishedAt: {{ $now | Quote }}
      message: MESSAGE
{{ end }}
"""


def stages() -> str:
    """KWOK's configuration."""
    documents = [_pod_stage("pod-runs", None, "Pending", _RUNNING, 0.0)]
    for role, message in messages().items():
        quoted = json.dumps(message).replace(_RUN, "{{ $run }}")
        template = _ENDED.replace("LABEL", LABEL_RUN).replace("MESSAGE", quoted)
        documents.append(_pod_stage(f"{role}-ends", role, "Running", template, SECONDS[role]))
    return yaml.safe_dump_all(documents)


def kwok(plane: ControlPlane) -> Component:
    """The process that plays all kubelets. No leases and no heartbeats: nobody judges the nodes."""
    file = plane.folder / "kwok.yaml"
    port = free_port()
    options = flags(
        kubeconfig=plane.kubeconfig,
        config=file,
        manage_all_nodes="true",
        node_lease_duration_seconds=0,
        server_address=f"127.0.0.1:{port}",
    )
    return Component(
        "kwok",
        (str(binaries.folder_of("kwok") / "kwok"), *options),
        files=((file, stages()),),
        ready=f"http://127.0.0.1:{port}/healthz",
    )


async def install(api: Api, crds: Path) -> None:
    """Our kinds."""
    for file in sorted(crds.glob("*.yaml")):  # noqa: ASYNC240 - nothing else runs yet
        crd = yaml.safe_load(file.read_text())
        await api.create(crd)
        while True:
            found = await api.get("CustomResourceDefinition", "", crd["metadata"]["name"]) or {}
            conditions = (found.get("status") or {}).get("conditions") or ()
            if any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions):
                break
            await asyncio.sleep(0.05)


async def furnish(api: Api, namespaces: tuple[str, ...]) -> None:
    """Nodes with plenty of everything, and namespaces with the store's claim bound."""
    plenty = {"cpu": "1000", "memory": "1000Gi", "pods": "1000", "nvidia.com/gpu": "1000", "ephemeral-storage": "1Ti"}
    for number in range(NODES):
        node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number:02}"}}
        await api.create(node)
        ready = {"type": "Ready", "status": "True", "reason": "Fake", "message": ""}
        await api.set_status(node, "", {"capacity": plenty, "allocatable": plenty, "conditions": [ready]})
        # The API server gives every new node the taint that a node controller would take away.
        await api.send("PATCH", f"/api/v1/nodes/node-{number:02}", {"spec": {"taints": None}})
    for namespace in namespaces:
        await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        while await api.get("ServiceAccount", namespace, "default") is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        size = {"storage": CLAIM_GIGABYTES}
        modes = ["ReadWriteMany"]
        spec: Object = {"capacity": size, "accessModes": modes, "hostPath": {"path": "/none"}, "storageClassName": ""}
        spec["claimRef"] = {"namespace": namespace, "name": CLAIM}
        metadata = {"name": f"store-{namespace}"}
        await api.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})
        claim: Object = {"accessModes": modes, "resources": {"requests": size}, "storageClassName": ""}
        claim["volumeName"] = f"store-{namespace}"
        labels = {"app.kubernetes.io/managed-by": "finetune-operator"}
        item = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM, "labels": labels}}
        await api.create({**item, "spec": claim}, namespace)
        async with asyncio.timeout(30):
            while await _phase_of_claim(api, namespace) != "Bound":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


async def _phase_of_claim(api: Api, namespace: str) -> str:
    claim = await api.get("PersistentVolumeClaim", namespace, CLAIM) or {}
    return str((claim.get("status") or {}).get("phase"))


def dataset() -> Object:
    """The one Dataset of all jobs."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": DATASET},
        "spec": {"source": {"inline": {"jsonl": '{"text": "hello"}\n'}}},
    }


def job(number: int) -> Object:
    """One of many jobs; the seed makes each a run of its own."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"job-{number:05}"},
        "spec": {
            "baseModel": {"huggingFace": {"repo": "org/model"}},
            "dataset": {"name": DATASET},
            "hyperparameters": {"seed": number},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        },
    }
