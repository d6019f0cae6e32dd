"""A base model from a real S3 server."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.cluster.conftest import put_tiny_base
from tests.cluster.kube import Kube
from tests.cluster.objects import dataset, job
from tools.binaries import ensure
from tools.cluster.settings import NODE_IP

pytestmark = pytest.mark.cluster

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


def free_port() -> int:
    with socket.create_server((NODE_IP, 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """versitygw over a directory, on the node's bridge."""
    program = ensure("versitygw")["versitygw"] / "versitygw"
    data, metadata = tmp_path_factory.mktemp("s3"), tmp_path_factory.mktemp("s3-metadata")
    environment = {
        **os.environ,
        "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    port = free_port()
    command = [str(program), "--port", f"{NODE_IP}:{port}", "posix", "--sidecar", str(metadata), str(data)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        address = f"http://{NODE_IP}:{port}"
        _wait_until_it_answers(address)
        yield address
        server.terminate()


def client(address: str) -> "boto3.client":
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


def _wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            client(address).list_buckets()
        except (BotoCoreError, ClientError):
            assert time.monotonic() < deadline, "the S3 server does not answer"
        else:
            return


def test_base_from_s3_is_the_base_from_the_volume(kube: Kube, endpoint: str, tmp_path: Path) -> None:
    put_tiny_base(kube)
    claim = kube.get("pvc", "files")
    assert claim is not None
    volume = kube.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    base = Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"]) / "base"
    s3 = client(endpoint)
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
