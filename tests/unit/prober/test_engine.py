"""What the prober sends, to a real server."""

from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_prober.engine import TgiEngine


@pytest.mark.parametrize(("model", "adapter"), [("triage", "triage"), ("support", None)], ids=["adapter", "base"])
async def test_tgi_is_asked_for_an_adapter_but_not_for_its_model(model: str, adapter: str | None) -> None:
    asked: list[dict[str, Any]] = []

    async def generate(request: web.Request) -> web.Response:
        asked.append(await request.json())
        token = {"text": "json", "logprob": -0.1}
        return web.json_response({"generated_text": "json", "details": {"tokens": [token], "top_tokens": [[token]]}})

    app = web.Application()
    app.add_routes([web.post("/generate", generate)])
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        answer = await TgiEngine(str(server.make_url("")), session, "support").complete(model, "?", 1)
    assert answer.text == "json"
    assert asked[0]["parameters"].get("adapter_id") == adapter
