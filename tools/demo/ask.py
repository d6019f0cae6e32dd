"""Asking the deployment through the `openai` client, as a user would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from openai import OpenAI

from tools.console import StepError
from tools.demo.kubectl import Namespace
from tools.demo.tables import Answer

PORT = 8080
FORWARD_SECONDS = 20.0


@contextmanager
def address(namespace: Namespace, service: str) -> Iterator[str]:
    """The deployment's address from here: its Service on the local cluster, a port-forward elsewhere."""
    if os.environ.get("CLUSTER") != "current":
        found = namespace.get("service", service)
        if found is None:
            raise StepError(f"there is no Service {service} in namespace {namespace.name}")
        yield f"http://{found['spec']['clusterIP']}:{PORT}/v1"
        return
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = ["kubectl", f"--namespace={namespace.name}", "port-forward", f"service/{service}", f"{port}:{PORT}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as forward:
        try:
            _until_open(port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            forward.terminate()


def _until_open(port: int) -> None:
    deadline = time.monotonic() + FORWARD_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise StepError("kubectl port-forward does not answer") from None
            time.sleep(0.2)
        else:
            return


def ask(url: str, base: str, adapter: str, questions: list[tuple[str, str]]) -> list[Answer]:
    """Ask base and adapter each question (text, expected answer)."""
    client = _client(url)

    def reply(model: str, text: str) -> str:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=12
        )
        return (answer.choices[0].message.content or "").strip()

    return [Answer(text, expected, reply(base, text), reply(adapter, text)) for text, expected in questions]


def seconds_to_first_token(url: str, model: str, text: str) -> float:
    """How long one question waits for the beginning of its answer."""
    started = time.monotonic()
    answer = _client(url).chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=12, stream=True
    )
    with answer:
        for piece in answer:
            if piece.choices and piece.choices[0].delta.content:
                return round(time.monotonic() - started, 2)
    raise StepError(f"{model} ended its answer without a token")


def _client(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="unused", timeout=60)


def curl_line(url: str, model: str, text: str) -> str:
    """How to ask from a shell."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0})
    return f"curl -s {url}/chat/completions -H 'Content-Type: application/json' -d {_quoted(body)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
