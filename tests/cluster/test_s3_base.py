"""A base model from a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import put_tiny_base
from tests.cluster.kube import Kube
from tests.cluster.objects import dataset, job
from tests.cluster.servers import S3_KEYS, s3_client, s3_server

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


def test_base_from_s3_is_the_base_from_the_volume(kube: Kube, endpoint: str, tmp_path: Path) -> None:
    put_tiny_base(kube)
    claim = kube.get("pvc", "files")
    assert claim is not None
    volume = kube.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    base = Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"]) / "base"
    s3 = s3_client(endpoint)
    s3.create_bucket(Bucket="models")
    for file in base.iterdir():
        s3.upload_file(str(file), "models", f"tiny/{file.name}")
    kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": S3_KEYS},
        dataset(),
        job("from-volume", hyperparameters={"epochs": 1}, evaluation={"metrics": []}),
        job(
            "from-s3",
            baseModel={
                "s3": {
                    "uri": "s3://models/tiny",
                    "endpoint": endpoint,
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
