"""A small server under load: the queue's end, clients that leave, and SIGTERM."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from finetune_contract.base import StoredReference
from tests.trainer.server.running import Running, serving, wait_until
from tests.trainer.server.tiny import Shop

LONG = {"model": "tiny", "prompt": "The operator", "max_tokens": 1500, "temperature": 0}
"""The base repeats itself here and never ends on its own; a second or more."""
SHORT = {"model": "triage", "prompt": "json", "max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module")
def small(shop: Shop, adapters: dict[str, StoredReference]) -> Iterator[Running]:
    """Two at a time, three more may wait."""
    plan = shop.plan({"triage": adapters["triage"]}, max_batch_size=2, max_queue=3, request_timeout_seconds=30)
    with serving(shop.write_plan(plan, "small"), shop.root / "store", shop.adapters) as running:
        yield running


class Leaver:
    """A client that reads one token of a long answer and can leave at any time."""

    def __init__(self, server: Running) -> None:
        self._client = httpx.Client(timeout=60)
        self._stream = self._client.stream("POST", server.url + "/v1/completions", json={**LONG, "stream": True})
        self._response = self._stream.__enter__()
        assert self._response.status_code == 200
        self._parts = self._response.iter_text()  # kept: httpx closes the response with its iterator
        next(self._parts)

    def leave(self) -> None:
        self._stream.__exit__(None, None, None)
        self._client.close()


def is_idle(server: Running) -> bool:
    return server.metric("tgi_batch_current_size") == 0 and server.metric("tgi_queue_size") == 0


def test_a_full_queue_says_so_until_somebody_leaves(small: Running) -> None:
    cancelled = small.metric('tgi_request_failure{err="cancelled"')
    leavers = [Leaver(small), Leaver(small)]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(small.post, "/v1/completions", SHORT) for _ in range(3)]
        wait_until(lambda: small.metric("tgi_queue_size") == 3, 5, "three wait")

        refused = small.post("/v1/completions", SHORT)
        also_refused = small.post("/generate", {"inputs": "json"})
        assert small.get("/health").status_code == 200, "busy is not ill"
        for leaver in leavers:
            leaver.leave()
        answers = [one.result() for one in waiting]

    assert refused.status_code == also_refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert also_refused.json()["error_type"] == "overloaded"
    assert [answer.status_code for answer in answers] == [200] * 3
    wait_until(lambda: is_idle(small), 5, "the server is idle")
    assert small.metric('tgi_request_failure{err="cancelled"') - cancelled == 2
    assert small.metric('tgi_request_failure{err="overloaded"') >= 2


def test_a_client_that_leaves_before_the_answer_frees_its_place(small: Running) -> None:
    wait_until(lambda: is_idle(small), 30, "the server is idle")
    started = time.monotonic()
    whole = small.post("/v1/completions", LONG)
    seconds = time.monotonic() - started
    assert whole.json()["choices"][0]["finish_reason"] == "length", "the tiny base was expected to go on"

    for path, body in (("/v1/completions", LONG), ("/generate", {"inputs": LONG["prompt"]})):
        with pytest.raises(httpx.ReadTimeout):
            small.post(path, body, seconds=0.3)
        left = time.monotonic()
        wait_until(lambda: is_idle(small), seconds, "the place is free")
        assert time.monotonic() - left < seconds / 2


async def test_a_crowd_gets_answers_or_429_and_nothing_else(small: Running) -> None:
    alone = small.post("/v1/completions", SHORT).json()["choices"][0]["text"]
    limits = httpx.Limits(max_connections=300)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        answers = await asyncio.gather(*(client.post(f"{small.url}/v1/completions", json=SHORT) for _ in range(300)))

    assert {answer.status_code for answer in answers} == {200, 429}
    assert {answer.json()["choices"][0]["text"] for answer in answers if answer.status_code == 200} == {alone}


def test_sigterm_under_load_loses_nothing_that_was_accepted(small: Running) -> None:
    """The last test of its server."""
    asked = {**LONG, "max_tokens": 400}
    whole = small.post("/v1/completions", asked).json()["choices"][0]["text"]
    refusing = threading.Event()
    complete: list[str] = []

    def keep_asking(streams: bool) -> None:
        while not refusing.is_set():
            try:
                answer = small.post("/v1/completions", {**asked, "stream": streams})
            except httpx.ConnectError:
                refusing.set()
                return
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                refusing.set()
            elif answer.status_code == 200:
                complete.append(text_of(answer) if streams else answer.json()["choices"][0]["text"])
            else:
                assert answer.status_code == 429

    with ThreadPoolExecutor(5) as pool:
        clients = [pool.submit(keep_asking, at % 2 == 0) for at in range(5)]
        wait_until(lambda: small.metric("tgi_queue_size") > 1, 20, "requests wait behind a batch")
        before = len(complete)
        small.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.result()

    assert small.process.wait(30) == 0, small.log.read_text()[-2000:]
    assert refusing.is_set()
    assert len(complete) > before, "what was accepted before the signal is answered after it"
    assert set(complete) == {whole}


def text_of(answer: httpx.Response) -> str:
    """The text of a streamed completion, which must have come to its end."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return "".join(httpx.Response(200, text=line).json()["choices"][0]["text"] for line in lines[:-1])
