"""An engine that is told to stop under load answers what it has accepted. The last test of its engine."""

import asyncio
import random
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.engines import Target

CLIENTS = 12
TOKENS = 200
WARM_UP = 6
"""Answers before the signal."""


class Steady:
    """A client that asks models in turn until the engine refuses, and remembers what it was told."""

    def __init__(self, client: openai.AsyncOpenAI, models: list[str]) -> None:
        self._client = client
        self._models = models
        self.answers: list[tuple[str, str]] = []
        self.cut_short: list[Exception] = []
        self.is_refused = False
        self.in_flight = 0

    async def ask_until_refused(self, number: int) -> None:
        """Until anybody is: whoever came after that could meet the process's very end, where no answer is owed."""
        pick = random.Random(number)
        while not self.is_refused:
            model = pick.choice(self._models)
            self.in_flight += 1
            try:
                text = await self.ask(model, stream=number % 2 == 0)
            except Exception as error:  # noqa: BLE001 - an answer that broke off, however, is what this is about
                self.is_refused = True
                if not is_refusal(error):
                    self.cut_short.append(error)
                return
            finally:
                self.in_flight -= 1
            self.answers.append((model, text))

    async def ask(self, model: str, *, stream: bool) -> str:
        asked: dict[str, Any] = {"model": model, "prompt": "json", "max_tokens": TOKENS, "temperature": 0}
        if not stream:
            return str((await self._client.completions.create(**asked)).choices[0].text)
        text, reason = "", None
        async for chunk in await self._client.completions.create(**asked, stream=True):
            text += chunk.choices[0].text
            reason = chunk.choices[0].finish_reason
        assert reason in {"stop", "length"}, "a stream that ends without a reason was cut"
        return text


def is_refusal(error: Exception) -> bool:
    """Whether a request was turned away before it was accepted."""
    if isinstance(error, openai.APIConnectionError):
        return isinstance(error.__cause__, httpx.ConnectError)
    return isinstance(error, openai.InternalServerError) and error.status_code == httpx.codes.SERVICE_UNAVAILABLE


async def test_sigterm_under_load(target: Target) -> None:
    if target.stop is None:
        pytest.skip("ENGINE_STOP does not say how to send this engine SIGTERM")
    models = [target.base, *target.adapters]
    url, key = f"{target.url}/v1", target.api_key or "none"
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
        steady = Steady(client, models)
        alone = {model: await steady.ask(model, stream=False) for model in models}
        tasks = [asyncio.create_task(steady.ask_until_refused(number)) for number in range(CLIENTS)]
        async with asyncio.timeout(120):
            while len(steady.answers) < WARM_UP:  # noqa: ASYNC110 - waits for another process
                await asyncio.sleep(0.01)
        before, waiting = len(steady.answers), steady.in_flight
        target.stop()
        async with asyncio.timeout(120):
            await asyncio.gather(*tasks)

    assert waiting > 1, "there was no load"
    assert not steady.cut_short
    assert len(steady.answers) > before, "what was accepted before the signal is answered after it"
    assert set(steady.answers) <= set(alone.items()), "no model answers for another"
