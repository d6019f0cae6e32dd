"""Clients that are many, slow, or rude, and a server that is killed: each against a real process of its own."""

import asyncio
import json
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from finetune_contract.base import StoredReference
from finetune_contract.paths import ENV_API_KEYS_FILE
from tests.trainer.server.conftest import References
from tests.trainer.server.running import Running, serving, wait_until
from tests.trainer.server.tiny import Shop
from tools.ports import free_port

NAMES = ("tiny", "triage", "docs")
STALL_SECONDS = 3
CONNECTIONS = 1000


@pytest.fixture(scope="module")
def guarded(shop: Shop, adapters: dict[str, StoredReference]) -> Iterator[Running]:
    """It has API keys, gives a request three seconds, and starts with the usual limit of 1,024 files."""
    chosen = {name: adapters[name] for name in NAMES[1:]}
    plan = shop.plan(chosen, max_batch_size=8, max_queue=64, request_timeout_seconds=STALL_SECONDS)
    keys = shop.root / "keys"
    keys.write_text("sk-first\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    try:
        environment = {ENV_API_KEYS_FILE: str(keys)}
        with serving(shop.write_plan(plan, "guarded"), shop.root / "store", shop.adapters, environment) as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def asked(model: str, **changes: object) -> dict[str, object]:
    return {"model": model, "prompt": "json", "max_tokens": 8, "temperature": 0, **changes}


def post(server: Running, body: dict[str, object], key: str = "sk-first") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=60)


def test_keys_are_asked_for_and_change_while_it_runs(shop: Shop, guarded: Running) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/generate", "/generate_stream", "/"):
        answer = guarded.post(path, {})
        assert answer.status_code == 401, path
        assert ("error_type" in answer.json()) != path.startswith("/v1/"), "each API has its own shape"
    assert guarded.post("/v1/completions", {}).json()["error"]["code"] == "invalid_api_key"
    assert guarded.post("/v1/completions", {"prompt": "a" * 5_000_000}).status_code == 401, "told, not cut off"
    assert guarded.get("/v1/models").status_code == guarded.get("/docs").status_code == 401
    assert {guarded.get(path).status_code for path in ("/health", "/info", "/metrics")} == {200}

    (shop.root / "keys").write_text("sk-second\nsk-first\n")
    assert [post(guarded, asked("docs"), key).status_code for key in ("sk-first", "sk-second")] == [200, 200]


async def test_a_thousand_connections_at_once(guarded: Running) -> None:
    """Open at the same time: all are heard, and each gets its model's answer or 429."""
    alone = {name: post(guarded, asked(name)).json()["choices"][0]["text"] for name in NAMES}
    assert len(set(alone.values())) == len(NAMES)
    host, port = guarded.url.removeprefix("http://").split(":")
    everybody_is_here = asyncio.Barrier(CONNECTIONS)

    async def ask(name: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(host, int(port))
        await everybody_is_here.wait()
        body = json.dumps(asked(name)).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer sk-first\r\nConnection: close\r\n"
        )
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        headers, _, content = answer.partition(b"\r\n\r\n")
        status = int(headers.split()[1])
        return status, json.loads(content)["choices"][0]["text"] if status == 200 else ""

    names = [name for name, _ in zip(cycle(NAMES), range(CONNECTIONS), strict=False)]
    async with asyncio.timeout(120):
        answers = await asyncio.gather(*(ask(name) for name in names))

    assert {status for status, _ in answers} == {200, 429}
    for name, (status, text) in zip(names, answers, strict=True):
        assert status == 429 or text == alone[name], name
    assert guarded.get("/health").status_code == 200


class SilentReader:
    """A client that asks for megabytes and reads none of them."""

    def __init__(self, server: Running) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1500, "temperature": 0}
        body = json.dumps({**chat, "logprobs": True, "top_logprobs": 20, "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer sk-first\r\n"
        self.socket.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )


def connections(server: Running) -> int:
    """Sockets that the server's process holds."""
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    return sum("socket:" in str(link.readlink()) for link in links if link.is_symlink())


def test_readers_that_never_read_hold_nothing_for_long(guarded: Running) -> None:
    before = connections(guarded)
    readers = [SilentReader(guarded) for _ in range(8)]
    wait_until(lambda: guarded.metric("tgi_batch_current_size") > 0, 20, "they are being answered")

    # As many as a batch has places for; others are answered all the same.
    assert post(guarded, asked("docs")).status_code == 200
    wait_until(lambda: guarded.metric("tgi_batch_current_size") == 0, 30, "their places are free")
    wait_until(lambda: connections(guarded) <= before, 10 * STALL_SECONDS, "their connections are closed")
    for reader in readers:
        reader.socket.close()


def test_a_body_that_stops_is_given_up(guarded: Running) -> None:
    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer sk-first\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())

        answer = client.recv(65536)

    assert answer.split()[1] == b"408"


def test_kill_under_load_and_nobody_gets_another_model_s_answer(
    shop: Shop, adapters: dict[str, StoredReference], references: References
) -> None:
    """Clients of three models keep asking while the process is killed and started again, as the kubelet does."""
    alone = {(name, references.greedy(name, "The operator", 40)[0]) for name in NAMES}
    assert len({text for _, text in alone}) == len(NAMES)
    port = free_port()
    plan = shop.plan({name: adapters[name] for name in NAMES[1:]}, max_batch_size=4)
    path = shop.write_plan(plan, "killed")
    whole: list[tuple[str, str]] = []
    is_over = threading.Event()

    def keep_asking(name: str, stream: bool) -> None:
        body = asked(name, prompt="The operator", max_tokens=40, stream=stream)
        url = f"http://127.0.0.1:{port}/v1/completions"
        client = httpx.Client(timeout=30)
        while not is_over.is_set():
            try:
                answer = client.post(url, json=body)
            except httpx.TransportError:
                is_over.wait(0.5)
                continue
            if answer.status_code != 200:
                assert answer.status_code in {429, 503}
            elif stream:
                events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
                assert events[-1] == "[DONE]"
                whole.append((name, "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])))
            else:
                whole.append((name, answer.json()["choices"][0]["text"]))

    def answered(goal: int) -> Callable[[], bool]:
        return lambda: len(whole) >= goal

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(keep_asking, name, stream) for name in NAMES for stream in (False, True)]
        try:
            for _ in range(2):
                with serving(path, shop.root / "store", shop.adapters, port=port) as server:
                    wait_until(answered(len(whole) + 18), 60, "clients are answered")
                    server.process.send_signal(signal.SIGKILL)
        finally:
            is_over.set()
        for client in clients:
            client.result()

    assert set(whole) == alone
