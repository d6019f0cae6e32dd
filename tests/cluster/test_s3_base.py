"""A base model from a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import put_tiny_base
from tests.cluster.kube import Kube
from tests.cluster.objects import dataset, job
from tests.s3server import KEYS, S3Server, s3_server
from tools.cluster.settings import NODE_IP

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server on the node's bridge."""
    with s3_server(tmp_path_factory.mktemp("s3"), NODE_IP) as server:
        yield server


def test_base_from_s3_is_the_base_from_the_volume(kube: Kube, server: S3Server) -> None:
    put_tiny_base(kube)
    claim = kube.get("pvc", "files")
    assert claim is not None
    volume = kube.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    base = Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"]) / "base"
    s3 = server.client()
    s3.create_bucket(Bucket="models")
    for file in base.iterdir():
        s3.upload_file(str(file), "models", f"tiny/{file.name}")
    kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": KEYS},
        dataset(),
        job("from-volume", hyperparameters={"epochs": 1}, evaluation={"metrics": []}),
        job(
            "from-s3",
            baseModel={
                "s3": {
                    "uri": "s3://models/tiny",
                    "endpoint": server.endpoint,
                    "region": "us-east-1",
                    "credentialsSecretRef": {"name": "s3"},
                }
            },
            hyperparameters={"epochs": 1},
            evaluation={"metrics": []},
        ),
    )
    runs = [kube.wait_ready("finetunejob", name)["run"] for name in ("from-volume", "from-s3")]
    assert runs[0]["inputs"]["base"] == runs[1]["inputs"]["base"]
    assert runs[0]["key"] == runs[1]["key"]
