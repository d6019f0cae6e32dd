"""Fresh namespaces on the local cluster; the cluster is never assumed to be empty."""

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.cluster.kube import BIN, KUBECONFIG, ROOT, Kube, Object
from tests.order import put_first

TURNS = (
    "cluster/test_kueue.py",
    "cluster/test_canary.py",
    "cluster/test_batch.py",
    "cluster/test_lifecycle.py",
    "cluster/test_s3.py",
    "cluster/test_lost_pods.py",
    "cluster/test_pause.py",
    "cluster/test_storage.py",
    "cluster/test_dataset_inputs.py",
    "cluster/test_hostile.py",
    "cluster/test_causes.py",
    "cluster/test_multinode.py",
    "cluster/test_sources.py",
    "cluster/test_gate.py",
    "cluster/test_methods.py",
    "cluster/test_preflight.py",
    "cluster/test_exports.py",
    "cluster/test_report.py",
)
"""Those that wait for pods, the longest first; in the others, which only ask, the workers become even."""

SYSTEM_NAMESPACE = "finetune-system"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_first(items, TURNS)


@pytest.fixture(scope="session", autouse=True)
def _cluster_is_there() -> None:
    if not KUBECONFIG.exists() or not (BIN / "kubectl").exists():
        pytest.fail("no local cluster: run `make install` first")


@pytest.fixture(scope="session")
def system() -> Kube:
    """The operator's own namespace."""
    return Kube(SYSTEM_NAMESPACE)


def fresh_namespace() -> Kube:
    kube = Kube(f"test-{secrets.token_hex(4)}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kube.namespace, "labels": labels}})
    kube.wait("the namespace's default service account", lambda: kube.get("serviceaccount", "default"))
    return kube


@pytest.fixture
def kube() -> Iterator[Kube]:
    """A namespace of the test's own."""
    namespace = fresh_namespace()
    yield namespace
    namespace.kubectl("delete", "namespace", namespace.namespace, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def lab() -> Iterator[Kube]:
    """A namespace for a module, with a tiny base model in claim `files` at `base`, and rows beside it."""
    namespace = fresh_namespace()
    put_tiny_base(namespace)
    yield namespace
    namespace.kubectl("delete", "namespace", namespace.namespace, "--wait=false", "--ignore-not-found")


def trainer_image() -> str:
    return str(yaml.safe_load((ROOT / ".local" / "images.json").read_text())["trainer"])


def restricted_pod(container: Object, volumes: list[Object]) -> Object:
    """A pod that a `restricted` namespace admits and that may write to its volumes."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{"imagePullPolicy": "IfNotPresent", "securityContext": security, **container}],
        "volumes": volumes,
    }


@cache
def tiny_base() -> dict[str, bytes]:
    """Path -> content of what tests/cluster/tiny_base.py makes: once, for a pod would load torch in each namespace."""
    with TemporaryDirectory() as name:
        script = Path(__file__).with_name("tiny_base.py")
        subprocess.run([sys.executable, str(script), name], check=True, capture_output=True, timeout=300)
        folder = Path(name)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def put_tiny_base(kube: Kube) -> None:
    """A claim called `files` with the tiny base in it, copied from a ConfigMap by a pod."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    files = {path.replace("/", "."): content for path, content in tiny_base().items()}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tiny-base"},
        "binaryData": {key: base64.b64encode(content).decode() for key, content in files.items()},
    }
    # Not applied: `kubectl apply` repeats what it is given in an annotation, which may be of 256 KiB.
    kube.kubectl("create", "-f", "-", stdin=json.dumps(config_map))
    container = {
        "name": "copy",
        "image": trainer_image(),
        "command": ["sh", "-c", "cp -rL /made/* /files/"],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}, {"name": "made", "mountPath": "/made"}],
    }
    items = [{"key": path.replace("/", "."), "path": path} for path in tiny_base()]
    volumes: list[Object] = [
        {"name": "files", "persistentVolumeClaim": {"claimName": "files"}},
        {"name": "made", "configMap": {"name": "tiny-base", "items": items}},
    ]
    kube.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files"}, "spec": claim},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "tiny-base"},
            "spec": restricted_pod(container, volumes),
        },
    )

    def succeeded() -> bool:
        phase = kube.status("pod", "tiny-base").get("phase")
        assert phase != "Failed", kube.kubectl("logs", "tiny-base").stdout
        return bool(phase == "Succeeded")

    kube.wait("the tiny base model", succeeded, 120)
