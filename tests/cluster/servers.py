"""Servers that pods of the local cluster reach: they listen on the node's own bridge and stop with the test."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from tools.binaries import ensure
from tools.cluster.settings import NODE_IP

S3_KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


class _Handler(BaseHTTPRequestHandler):
    """`/good.jsonl` answers all rows; `/half.jsonl` promises them and hangs up in the middle; others are missing."""

    rows: bytes = b""

    def do_GET(self) -> None:
        if self.path not in ("/good.jsonl", "/half.jsonl"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.rows)))
        self.end_headers()
        half = self.path == "/half.jsonl"
        self.wfile.write(self.rows[: len(self.rows) // 2] if half else self.rows)
        self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        """Quiet: pytest shows what matters."""


@contextmanager
def http_server(rows: str) -> Iterator[str]:
    """The address of a server of these rows."""
    handler = type("Handler", (_Handler,), {"rows": rows.encode()})
    server = ThreadingHTTPServer((NODE_IP, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{NODE_IP}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def s3_server(directory: Path) -> Iterator[str]:
    """The address of versitygw over a directory."""
    program = ensure("versitygw")["versitygw"] / "versitygw"
    data, metadata = directory / "data", directory / "metadata"
    data.mkdir()
    metadata.mkdir()
    environment = {
        **os.environ,
        "ROOT_ACCESS_KEY": S3_KEYS["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": S3_KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    port = _free_port()
    command = [str(program), "--port", f"{NODE_IP}:{port}", "posix", "--sidecar", str(metadata), str(data)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        address = f"http://{NODE_IP}:{port}"
        _wait_until_it_answers(address)
        yield address
        server.terminate()


def s3_client(address: str) -> "boto3.client":
    """A client of that server."""
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=S3_KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
    )


def _free_port() -> int:
    with socket.create_server((NODE_IP, 0)) as server:
        return int(server.getsockname()[1])


def _wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            s3_client(address).list_buckets()
        except (BotoCoreError, ClientError):
            assert time.monotonic() < deadline, "the S3 server does not answer"
        else:
            return
