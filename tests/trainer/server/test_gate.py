"""A server that parts with its clients: connections that they keep end with an answer, not with a refusal."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from finetune_contract.base import StoredReference
from finetune_contract.serving import ServingPlan
from finetune_server.app import build_app
from finetune_server.engine import Engine
from finetune_server.gate import Gate
from finetune_server.metrics import Metrics
from finetune_server.model import Served
from finetune_server.service import Service


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


@asynccontextmanager
async def served(gate: Gate) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(gate, log_level="warning", lifespan="off"))
        running = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running


async def test_while_it_lingers_every_answer_ends_its_connection() -> None:
    gate = Gate(hello, None, 5)
    async with served(gate) as url, httpx.AsyncClient(timeout=5) as client:
        kept = await client.post(url)
        assert "connection" not in kept.headers
        draining = asyncio.create_task(gate.drain(0.5, 5))
        await asyncio.sleep(0)
        # The first goes over the connection that was kept, the second over one of its own.
        for _ in range(2):
            answer = await client.post(url)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert await draining
        refused = await client.post(url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_who_is_being_replaced_does_not_say_that_a_model_does_not_exist() -> None:
    base = StoredReference(digest="sha256:" + "b" * 64, uri="pvc://claim/models/b")
    plan = ServingPlan(name="tiny", namespace="test", base=base, claim="claim")
    models = [Served("tiny", "base", "/models/b")]
    gate = build_app(Service(plan, models, cast("Engine", None), Metrics()))
    transport = httpx.ASGITransport(gate)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        body = {"model": "new", "prompt": "Hello"}
        unknown = await client.post("/v1/completions", json=body)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
        draining = asyncio.create_task(gate.drain(0.5, 5))
        await asyncio.sleep(0)
        # The pods after it may well serve it: ask again.
        leaving = await client.post("/v1/completions", json=body)
        assert (leaving.status_code, leaving.headers["retry-after"]) == (503, "1")
        assert await draining
