"""A prober that is told to go stays as long as its engine answers."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from finetune_contract.base import StoredReference
from finetune_contract.serving import ServingPlan
from finetune_prober.__main__ import prove
from tools.ports import free_port

PLAN = ServingPlan(
    name="support", namespace="n", base=StoredReference(digest="sha256:" + "0" * 64, uri="pvc://c/models/0"), claim="c"
)


class Engine:
    """What the prober asks of one that serves the base alone."""

    def __init__(self) -> None:
        self.is_healthy = True

    async def start(self) -> tuple[web.AppRunner, int]:
        async def health(_request: web.Request) -> web.Response:
            return web.Response(status=200 if self.is_healthy else 503)

        async def models(_request: web.Request) -> web.Response:
            return web.json_response({"data": [{"id": "support"}]})

        app = web.Application()
        app.add_routes([web.get("/health", health), web.get("/v1/models", models)])
        runner, port = web.AppRunner(app), free_port()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner, port


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await look():  # noqa: ASYNC110 - waits for what a server says
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_proven", [True, False], ids=["proven", "not proven yet"])
async def test_it_goes_with_its_engine(tmp_path: Path, is_proven: bool) -> None:
    engine, port = Engine(), free_port()
    engine.is_healthy = is_proven
    runner, engine_port = await engine.start()
    proving = asyncio.create_task(prove(PLAN, tmp_path, f"http://127.0.0.1:{engine_port}", "127.0.0.1", port))

    async with aiohttp.ClientSession() as session:

        async def ready() -> int | None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
                    return answer.status
            except aiohttp.ClientError:
                return None

        async def answers() -> bool:
            return await ready() == (200 if is_proven else 503)

        await until(answers)
        os.kill(os.getpid(), signal.SIGTERM)
        if is_proven:
            # The signal has been taken when the second answer comes.
            assert [await ready(), await ready()] == [200, 200], "its engine still answers"
            assert not proving.done()
            engine.is_healthy = False
        await asyncio.wait_for(proving, 10)
        assert await ready() is None
    await runner.cleanup()
