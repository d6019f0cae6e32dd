"""What the prober sends, to a real server."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_prober.engine import Engine, EngineRefusedError, TgiEngine


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


class Guarded:
    """An engine that wants a key."""

    def __init__(self) -> None:
        self.keys = {"one", "two"}

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.keys:
            return web.Response(status=401, text="no such key")
        return web.json_response({"data": [{"id": "support"}]})


async def test_the_first_key_of_the_secret_is_sent_and_a_new_one_is_read(tmp_path: Path) -> None:
    guarded, file = Guarded(), tmp_path / "keys"
    app = web.Application()
    app.add_routes([web.get("/v1/models", guarded.models)])
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url(""))
        with pytest.raises(EngineRefusedError, match="401: no such key"):
            await Engine(url, session, "support").missing(["support"])
        engine = Engine(url, session, "support", file)
        with pytest.raises(EngineRefusedError, match="No such file"):
            await engine.missing(["support"])
        file.write_text("\n")
        with pytest.raises(EngineRefusedError, match="there is no key in the Secret of"):
            await engine.missing(["support"])
        file.write_text("one\ntwo\n")
        assert await engine.missing(["support"]) == ()
        guarded.keys = {"three"}
        file.write_text("three\n")
        assert await engine.missing(["support"]) == ()
