"""A store on a ReadWriteOnce claim, and its collection by a real pod.

Retention is off in the installed operator, and what it deletes must be none of others', so a second operator that sees
the test's namespace only runs as a process here, with an age of seconds.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.conftest import put_tiny_base
from tests.cluster.kube import KUBECONFIG, ROOT, Kube, Object
from tests.cluster.objects import dataset, deployment, job

pytestmark = pytest.mark.cluster

MINIMUM_AGE, INTERVAL = 15, 5
OURS = "app.kubernetes.io/managed-by=finetune-operator"
CLAIM: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    # The label lets the operator see a claim that it has not made.
    "metadata": {"name": "finetune-artifacts", "labels": {"app.kubernetes.io/managed-by": "finetune-operator"}},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def rows(word: str) -> Object:
    lines = [json.dumps({"prompt": f"{word} {number}", "completion": "yes"}) for number in range(8)]
    return {"inline": {"jsonl": "\n".join(lines)}}


def store_of(kube: Kube) -> Path:
    """The store's directory: the test runs on the cluster's one node."""
    claim = kube.get("pvc", "finetune-artifacts")
    assert claim is not None
    volume = kube.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    return Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"])


@contextmanager
def operator_with_retention(kube: Kube, log: Path) -> Iterator[None]:
    environment = {
        **os.environ,
        "KUBECONFIG": str(KUBECONFIG),
        "FINETUNE_NAMESPACES": kube.namespace,
        "FINETUNE_POD_NAMESPACE": kube.namespace,
        "FINETUNE_OPERATOR_IMAGE": json.loads((ROOT / ".local" / "images.json").read_text())["operator"],
        "FINETUNE_HEALTH_PORT": "0",
        "FINETUNE_RETENTION_MINIMUM_AGE_SECONDS": str(MINIMUM_AGE),
        "FINETUNE_COLLECTION_INTERVAL_SECONDS": str(INTERVAL),
    }
    command = [sys.executable, "-m", "finetune_operator"]
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def test_the_three_kinds_share_a_claim_of_one_node(kube: Kube) -> None:
    put_tiny_base(kube)
    short = {"epochs": 1}
    kube.apply(CLAIM, dataset(), job(hyperparameters=short, evaluation={"metrics": []}), deployment())
    kube.wait_ready("modeldeployment", "colours")
    kube.apply(dataset("another"))  # prepared beside the pod that serves
    kube.wait_ready("dataset", "another")
    found = {pod["metadata"]["labels"]["finetune.dev/role"]: pod["spec"] for pod in kube.find("pods", OURS)}
    assert found.keys() >= {"serve", "prepare"}
    for pod in found.values():
        assert "podAffinity" in pod["affinity"]
    assert len({pod["nodeName"] for pod in found.values()}) == 1


def test_a_store_on_one_node_is_used_and_collected(kube: Kube, tmp_path: Path) -> None:
    kube.apply(CLAIM, dataset("kept", source=rows("a")), dataset("dropped", source=rows("b")))
    kept, dropped = (kube.wait_ready("dataset", name)["revision"]["digest"] for name in ("kept", "dropped"))
    for pod in kube.find("pods", "finetune.dev/role=prepare"):
        assert "podAffinity" in pod["spec"]["affinity"]
    folder = store_of(kube) / "datasets"
    assert {path.name for path in folder.iterdir()} == {digest.removeprefix("sha256:") for digest in (kept, dropped)}
    kube.kubectl("delete", "dataset", "dropped")
    log = tmp_path / "operator.log"
    with operator_with_retention(kube, log):
        try:
            kube.wait(
                "the unreferenced revision's deletion",
                lambda: not (folder / dropped.removeprefix("sha256:")).exists(),
                MINIMUM_AGE + 90,
            )
            kube.wait("an event", lambda: "Collected" in kube.kubectl("get", "events").stdout, 30)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-4000:]}") from error
    assert [path.name for path in folder.iterdir()] == [kept.removeprefix("sha256:")]
    kube.apply(dataset("dropped", source=rows("b")))
    assert kube.wait_ready("dataset", "dropped")["revision"]["digest"] == dropped
