"""Fresh namespaces on the local cluster; the cluster is never assumed to be empty."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.kube import BIN, KUBECONFIG, ROOT, Kube, Object

TINY_BASE = Path(__file__).with_name("tiny_base.py")
SYSTEM_NAMESPACE = "finetune-system"


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


def put_tiny_base(kube: Kube) -> None:
    """Run tests/cluster/tiny_base.py in the trainer image; it writes to a claim called `files`."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    container = {
        "name": "make",
        "image": trainer_image(),
        "command": ["python", "/script/tiny_base.py", "/files"],
        "volumeMounts": [
            {"name": "files", "mountPath": "/files"},
            {"name": "script", "mountPath": "/script"},
            {"name": "scratch", "mountPath": "/scratch"},
        ],
    }
    volumes: list[Object] = [
        {"name": "files", "persistentVolumeClaim": {"claimName": "files"}},
        {"name": "script", "configMap": {"name": "tiny-base"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    kube.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files"}, "spec": claim},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "tiny-base"},
            "data": {"tiny_base.py": TINY_BASE.read_text()},
        },
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
