"""A real S3 server for tests: versitygw over a directory."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from finetune_contract.paths import ENV_STORE
from tools.binaries import ensure
from tools.ports import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}

STORE_KEYS = {f"{ENV_STORE}{name}": value for name, value in KEYS.items()}
"""As a pod's environment has them for the store."""


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str
    data: Path
    """Buckets are folders here, objects files."""

    def client(self) -> Any:
        """A client with the server's keys."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )


@contextmanager
def s3_server(directory: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """A server on a free port of an address, until the end of the block."""
    program = ensure("versitygw")["versitygw"] / "versitygw"
    data, metadata = directory / "data", directory / "metadata"
    for folder in (data, metadata):
        folder.mkdir()
    port = free_port(host)
    environment = {
        **os.environ,
        "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    command = [str(program), "--port", f"{host}:{port}", "posix", "--sidecar", str(metadata), str(data)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        server = S3Server(f"http://{host}:{port}", data)
        try:
            _wait_until_it_answers(server)
            yield server
        finally:
            process.terminate()


def _wait_until_it_answers(server: S3Server) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            server.client().list_buckets()
        except (BotoCoreError, ClientError):
            assert time.monotonic() < deadline, "the S3 server does not answer"
        else:
            return
