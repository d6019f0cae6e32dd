"""The engine in this process: time limits, batches that fail, loads that fail, and what ends an answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import torch
from transformers import AutoTokenizer

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.app import build_app
from finetune_server.engine import Engine, State
from finetune_server.metrics import Metrics
from finetune_server.model import BASE, LanguageModel, end_tokens_of, served_models
from finetune_server.requests import GenerationRequest
from finetune_server.service import Service
from tests.trainer.server.tiny import Shop

ASKED = {"model": "triage", "prompt": "json", "max_tokens": 4, "temperature": 0}


class Local:
    """An application without a socket."""

    def __init__(
        self, client: httpx.AsyncClient, engine: Engine, metrics: Metrics, deaths: list[FineTuneError | None]
    ) -> None:
        self.client = client
        self.metrics = metrics
        self.engine = engine
        self.deaths = deaths

    async def ask(self, **changes: object) -> httpx.Response:
        return await self.client.post("/v1/completions", json={**ASKED, **changes})

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():  # noqa: ASYNC110 - the model's thread sets no event
                await asyncio.sleep(0.01)

    async def until_running(self) -> None:
        await self.until(lambda: b"tgi_batch_current_size 1.0" in self.metrics.text())


@asynccontextmanager
async def local(
    shop: Shop, adapters: dict[str, StoredReference], loader: Callable[[], LanguageModel], **settings: Any
) -> AsyncIterator[Local]:
    plan = shop.plan(adapters, **settings)
    metrics = Metrics()
    engine = Engine(plan, loader, metrics)
    service = Service(plan, served_models(plan, shop.root / "store", shop.adapters), engine, metrics)
    deaths: list[FineTuneError | None] = []
    engine.start(asyncio.get_running_loop(), deaths.append)
    transport = httpx.ASGITransport(build_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://local", timeout=60) as client:
        yield Local(client, engine, metrics, deaths)
    engine.stop()


class Slow(LanguageModel):
    """A model that waits before every token until it may go on."""

    def __init__(self, loaded: LanguageModel) -> None:
        self.__dict__ = dict(loaded.__dict__)
        self.loaded = loaded
        self.may_go_on = threading.Event()

    def forward(self, *arguments: Any) -> Any:
        self.may_go_on.wait(10)
        return self.loaded.forward(*arguments)


async def test_late_answers_are_told(shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel) -> None:
    """As a status, and as an event of a stream that has begun; the row is freed."""
    slow = Slow(loaded)
    async with local(shop, adapters, lambda: slow, request_timeout_seconds=0.1) as app:
        await app.until(lambda: app.engine.is_healthy)

        whole, stream = await asyncio.gather(app.ask(), app.ask(stream=True))
        slow.may_go_on.set()

        assert whole.status_code == 504
        assert whole.json()["error"]["code"] == "timeout"
        assert stream.status_code == 200
        assert '"code":"timeout"' in stream.text
        assert "[DONE]" not in stream.text
        assert (await app.client.get("/metrics")).text.count('err="timeout",model="triage"} 2.0') == 1


class Faulty(LanguageModel):
    """A model whose next forwards raise, or answer NaN."""

    def __init__(self, loaded: LanguageModel) -> None:
        self.__dict__ = dict(loaded.__dict__)
        self.loaded = loaded
        self.failures = 0
        self.spares_running = False
        self.is_nan = False

    def forward(self, *arguments: Any) -> Any:
        is_running = arguments[-1] is not None
        logits, cache = self.loaded.forward(*arguments)
        if self.failures and not (is_running and self.spares_running):
            self.failures -= 1
            raise RuntimeError("out of memory")
        if self.is_nan:
            return torch.full_like(logits, torch.nan), cache
        return logits, cache


async def test_a_batch_that_fails_fails_alone(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    faulty = Faulty(loaded)
    async with local(shop, adapters, lambda: faulty) as app:
        await app.until(lambda: app.engine.is_healthy)
        good = (await app.ask()).json()["choices"][0]["text"]
        faulty.failures = 2

        failed = [await app.ask(model="docs"), await app.ask(model="tiny")]
        after = await app.ask()

        assert [answer.status_code for answer in failed] == [500, 500]
        assert "the batch failed: RuntimeError" in failed[0].json()["error"]["message"]
        assert after.json()["choices"][0]["text"] == good, "nothing of the failed batches stays behind"
        assert not app.deaths


async def test_prompts_that_cannot_be_read_fail_alone(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    faulty = Faulty(loaded)
    faulty.spares_running = True
    async with local(shop, adapters, lambda: faulty) as app:
        await app.until(lambda: app.engine.is_healthy)
        wanted = (await app.ask(model="tiny", max_tokens=300)).json()["choices"][0]["text"]
        running = asyncio.create_task(app.ask(model="tiny", max_tokens=300))
        await app.until_running()
        faulty.failures = 1

        failed = await app.ask()

        assert failed.status_code == 500
        assert (await running).json()["choices"][0]["text"] == wanted


async def test_a_request_joins_the_running_batch(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    async with local(shop, adapters, lambda: loaded) as app:
        await app.until(lambda: app.engine.is_healthy)
        alone = (await app.ask()).json()["choices"][0]["text"]
        running = asyncio.create_task(app.ask(model="tiny", max_tokens=1500))
        await app.until_running()

        joined = (await app.ask()).json()["choices"][0]["text"]

        assert not running.done(), "it has waited for the end of the batch"
        assert joined == alone
        running.cancel()


async def test_first_and_last_tokens_are_told_at_once(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    """Those between them may come together."""
    async with local(shop, adapters, lambda: loaded) as app:
        await app.until(lambda: app.engine.is_healthy)
        request = GenerationRequest(model="tiny", adapter=BASE, prompt=[5, 6, 7], max_tokens=200)

        told = [tokens async for tokens in app.engine.tokens(app.engine.submit(request, is_whole=False))]
        whole = [tokens async for tokens in app.engine.tokens(app.engine.submit(request, is_whole=True))]

        assert len(told[0]) == 1
        assert [len(tokens) for tokens in whole] == [200]
        assert [token for tokens in told for token in tokens] == whole[0]


async def test_a_broken_engine_dies_and_says_so(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    faulty = Faulty(loaded)
    async with local(shop, adapters, lambda: faulty) as app:
        await app.until(lambda: app.engine.is_healthy)
        faulty.failures = 9

        failed = [await app.ask() for _ in range(3)]
        await app.until(lambda: bool(app.deaths))

        assert [answer.status_code for answer in failed] == [500] * 3
        assert (await app.ask()).status_code == 503
        assert (await app.client.get("/health")).status_code == 503


async def test_numbers_that_are_not_finite_are_no_answer(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    faulty = Faulty(loaded)
    async with local(shop, adapters, lambda: faulty) as app:
        await app.until(lambda: app.engine.is_healthy)
        faulty.is_nan = True

        answer = await app.ask(temperature=1)

        assert answer.status_code == 500
        assert "not finite" in answer.json()["error"]["message"]


async def test_a_load_that_fails_is_the_processs_failure(shop: Shop, adapters: dict[str, StoredReference]) -> None:
    def fail() -> LanguageModel:
        raise FineTuneError(FailureReason.MODEL_NOT_FOUND, "base: holds no config.json")

    async with local(shop, adapters, fail) as app:
        await app.until(lambda: bool(app.deaths))

        assert app.engine.state is State.DEAD
        assert app.deaths[0] is not None
        assert app.deaths[0].reason is FailureReason.MODEL_NOT_FOUND
        assert (await app.client.get("/health")).status_code == 503


def test_the_template_s_end_of_turn_ends_answers(shop: Shop) -> None:
    """Also where the tokenizer's end of sequence is another token."""
    tokenizer = AutoTokenizer.from_pretrained(shop.base_path)
    tokenizer.eos_token = "<|endoftext|>"
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))

    assert end_tokens_of(model, tokenizer) == {0, 2}
    tokenizer.chat_template = None
    assert end_tokens_of(model, tokenizer) == {0}


async def test_an_answer_ends_at_an_end_token(
    shop: Shop, adapters: dict[str, StoredReference], loaded: LanguageModel
) -> None:
    """Its log-probability is reported, its text is not."""
    ending = Slow(loaded)
    ending.may_go_on.set()
    async with local(shop, adapters, lambda: ending) as app:
        await app.until(lambda: app.engine.is_healthy)
        body = {"inputs": "json", "parameters": {"max_new_tokens": 4, "details": True, "adapter_id": "triage"}}
        told = (await app.client.post("/generate", json=body)).json()
        ids = [token["id"] for token in told["details"]["tokens"]]
        ending.end_tokens = frozenset({ids[2]})

        answer = (await app.client.post("/generate", json=body)).json()

        assert ids[2] not in ids[:2]
        assert answer["generated_text"] == loaded.decode(ids[:2])
        assert [token["id"] for token in answer["details"]["tokens"]] == ids[:3]
        assert answer["details"]["finish_reason"] == "eos_token"
