"""A real S3 server: as the source of a base model, and as the store of all three kinds."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job
from tests.cluster.training import has_checkpoint
from tests.s3server import KEYS, S3Server, s3_server
from tools.cluster.settings import NODE_IP

pytestmark = pytest.mark.cluster

SECRET: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": KEYS}


@dataclass(frozen=True)
class Shop:
    """A server with the tiny base model in a bucket, and rows to learn from."""

    server: S3Server
    rows: str

    def base(self) -> Object:
        return {"s3": {"uri": "s3://models/tiny", **self.access()}}

    def access(self) -> Object:
        return {"endpoint": self.server.endpoint, "region": "us-east-1", "credentialsSecretRef": {"name": "s3"}}


@pytest.fixture(scope="module")
def shop(lab: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    claim = lab.get("pvc", "files")
    assert claim is not None
    volume = lab.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    files = Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"])
    with s3_server(tmp_path_factory.mktemp("s3"), NODE_IP) as server:
        s3 = server.client()
        for bucket in ("models", "store"):
            s3.create_bucket(Bucket=bucket)
        for file in (files / "base").iterdir():
            s3.upload_file(str(file), "models", f"tiny/{file.name}")
        yield Shop(server, (files / "rows.jsonl").read_text())


def test_base_from_s3_is_the_base_from_the_volume(lab: Kube, shop: Shop) -> None:
    short: dict[str, Any] = {"hyperparameters": {"epochs": 1}, "evaluation": {"metrics": []}}
    lab.apply(SECRET, dataset(), job("from-volume", **short), job("from-s3", baseModel=shop.base(), **short))
    runs = [lab.wait_ready("finetunejob", name)["run"] for name in ("from-volume", "from-s3")]
    assert runs[0]["inputs"]["base"] == runs[1]["inputs"]["base"]
    assert runs[0]["key"] == runs[1]["key"]


def test_the_three_kinds_without_a_claim_and_a_killed_pod_that_goes_on(kube: Kube, shop: Shop) -> None:
    store = {"s3": {"uri": f"s3://store/{kube.namespace}", **shop.access()}}
    kube.apply(
        SECRET,
        dataset(source={"inline": {"jsonl": shop.rows}}, storage=store),
        job(
            baseModel=shop.base(),
            storage=store,
            hyperparameters={"epochs": 60, "learningRate": 0.003, "globalBatchSize": 4, "packing": False},
            checkpoints={"intervalSteps": 20},
            evaluation={"metrics": []},
        ),
        deployment(storage=store),
    )
    kube.wait("a checkpoint in S3", has_checkpoint(kube, "colour-namer"), 120)
    kube.kubectl("delete", "pods", "-l", "finetune.dev/role=train", "--wait=false", "--grace-period=0", "--force")
    status = kube.wait_ready("finetunejob", "colour-namer", 300)
    first, second = status["attempts"]
    assert first["reason"] in {"Preempted", "PodDeleted", "Unknown", "NodeLost"}
    assert second["reason"] == "Succeeded"
    assert second["resumedFromStep"] > 0
    assert status["artifact"]["uri"].startswith(f"s3://store/{kube.namespace}/artifacts/")
    kube.wait_ready("modeldeployment", "colours")
    assert kube.find("pvc") == []
    outcome = shop.server.data / "store" / kube.namespace / "runs" / status["run"]["key"] / "outcome.json"
    assert json.loads(outcome.read_text())["artifact"]["digest"] == status["artifact"]["digest"]
