"""Asking a model behind an OpenAI-compatible endpoint: one question, again where it fails, counted."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.evaluate.record import EndpointUse

log = logging.getLogger(__name__)

_LONGEST_WAIT = 30.0
"""Seconds between two tries, also where the endpoint asks for more."""

_PERMANENT = (400, 401, 403, 404, 405, 422)
"""Answers that another try would only repeat."""

Turns = Sequence[dict[str, Any]]
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Settings:
    """Whom to ask, and how patiently."""

    path: str
    """The field of the spec that names it, for messages: `evaluation.judge`."""
    url: str
    """Its base URL."""
    model: str
    key_variable: str | None
    """The environment variable with the API key."""
    max_tokens: int
    """Of an answer."""
    concurrency: int
    timeout_seconds: float
    retries: int


class Endpoint:
    """An endpoint; may be asked from several threads."""

    def __init__(self, settings: Settings) -> None:
        key = os.environ.get(settings.key_variable, "") if settings.key_variable else ""
        self._settings = settings
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=settings.timeout_seconds,
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        self._lock = threading.Lock()
        self._requests = self._retries = self._nonsense = 0
        self.last_trouble = ""
        """What went wrong last, for the message of a failure."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._client.close()

    def use(self, system: str | None = None) -> EndpointUse:
        """What was asked so far."""
        return EndpointUse(system=system, requests=self._requests, retries=self._retries, nonsense=self._nonsense)

    def ask(self, turns: Turns, read: Callable[[str], AnswerT | None], wanted: str) -> AnswerT | None:
        """What is read from the answer to one question; None where there was none after all tries.

        Args:
            turns: The conversation.
            read: From an answer's words to what they say; None where they are nonsense.
            wanted: What `read` looks for, for the log.

        Raises:
            FineTuneError: EvaluationFailed where no other try could help: the key, the model or the address is wrong.
        """
        asked_to_wait = 0.0
        for number in range(self._settings.retries + 1):
            time.sleep(self._count(number, asked_to_wait))
            asked_to_wait = 0.0
            try:
                answer = self._client.post(
                    f"{self._settings.url.rstrip('/')}/chat/completions",
                    json={
                        "model": self._settings.model,
                        "messages": list(turns),
                        "temperature": 0,
                        "seed": number,
                        "max_tokens": self._settings.max_tokens,
                    },
                )
            except httpx.HTTPError as error:
                self._trouble(f"{type(error).__name__}: {error}")
                continue
            if answer.status_code in _PERMANENT:
                raise _refused(self._settings, answer)
            if answer.status_code != httpx.codes.OK:
                self._trouble(f"HTTP {answer.status_code}: {answer.text[:200]}")
                asked_to_wait = _seconds(answer.headers.get("retry-after"))
                continue
            words = _content(answer)
            found = read(words) if words is not None else None
            if found is not None:
                return found
            with self._lock:
                self._nonsense += 1
            self._trouble(f"no {wanted} in {(answer.text if words is None else words)[:200]!r}")
        return None

    def _count(self, number: int, asked_to_wait: float) -> float:
        """Count a request, and say how long to wait before it: longer each time, by chance, as others wait too."""
        with self._lock:
            self._requests += 1
            self._retries += number > 0
        if number == 0:
            return 0.0
        return min(_LONGEST_WAIT, max(asked_to_wait, random.uniform(0.5, 1.0) * self._first_wait * 2.0**number))

    _first_wait = 0.25
    """Seconds."""

    def _trouble(self, words: str) -> None:
        with self._lock:
            self.last_trouble = words
        log.info("%s: %s", self._settings.path, words)


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:  # a date
        return 1.0


def _content(answer: httpx.Response) -> str | None:
    """The words of a chat completion; None where it is none."""
    try:
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _refused(settings: Settings, answer: httpx.Response) -> FineTuneError:
    what = {
        401: f"{settings.path}.apiKeySecretRef: the key is not accepted",
        403: f"{settings.path}.apiKeySecretRef: the key may not use the model",
        404: f"{settings.path}: {settings.url} knows no model {settings.model!r}, or is no OpenAI-compatible base URL",
    }.get(answer.status_code, f"{settings.path}: {settings.url} refuses the question")
    return FineTuneError(
        FailureReason.EVALUATION_FAILED,
        f"{what} (HTTP {answer.status_code}: {answer.text[:200]}); the artifact is kept",
    )
