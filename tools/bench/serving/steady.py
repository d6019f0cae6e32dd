"""Clients that ask on while pods come and go: never a second try, so that each request that failed is seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

PAUSE_SECONDS = 0.1
"""Between an answer and the next question: the answers are to be seen, the server not to be kept busy."""


class Asked(NamedTuple):
    """One request, and what became of it."""

    at: float
    """When the answer had come, by `time.time()`."""
    model: str
    status: int
    """HTTP's; 0 without an answer."""
    text: str
    """The answer's, or why there is none."""
    logprobs: tuple[float, ...] = ()
    """Of the answer's tokens, to three digits: whose they are even where two models choose the same words."""


class Steady:
    """Every other client keeps its connection; the others make a new one for each request."""

    def __init__(self, url: str, prompt: str, max_tokens: int = 6) -> None:
        """Ask the completions of the server at `url`, greedily."""
        self._url = f"{url}/v1/completions"
        self._body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1}
        self._stop = threading.Event()
        self.asked: list[Asked] = []

    @property
    def answers(self) -> list[Asked]:
        """Requests that were answered."""
        return [each for each in self.asked if each.status == httpx.codes.OK]

    @property
    def failures(self) -> list[Asked]:
        """Requests that were not."""
        return [each for each in self.asked if each.status != httpx.codes.OK]

    def ask(self, client: httpx.Client, model: str, headers: dict[str, str] | None = None) -> Asked:
        """One request."""
        try:
            response = client.post(self._url, json={"model": model, **self._body}, headers=headers)
        except httpx.TransportError as error:
            return Asked(time.time(), model, 0, repr(error))
        now = time.time()
        if response.status_code != httpx.codes.OK:
            return Asked(now, model, response.status_code, response.text[:300])
        choice: dict[str, Any] = response.json()["choices"][0]
        logprobs = tuple(round(value, 3) for value in choice["logprobs"]["token_logprobs"])
        return Asked(now, model, response.status_code, choice["text"], logprobs)

    @contextmanager
    def asking(self, models: Sequence[str], clients: int = 2) -> Iterator[None]:
        """So many clients ask the models in turn until the block ends."""
        threads = [threading.Thread(target=self._go_on, args=(models, number)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _go_on(self, models: Sequence[str], number: int) -> None:
        headers = {} if number % 2 == 0 else {"Connection": "close"}
        turn = number
        with httpx.Client(timeout=120) as client:
            while not self._stop.wait(PAUSE_SECONDS):
                self.asked.append(self.ask(client, models[turn % len(models)], headers))
                turn += 1
