"""Asking a judge: one question to an OpenAI-compatible endpoint, again where it fails, counted."""

import logging
import os
import random
import re
import threading
import time
from enum import StrEnum

import httpx

from finetune_contract.evaluating import JudgePlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_JUDGE_KEY
from finetune_trainer.evaluate.record import JudgeUse

log = logging.getLogger(__name__)

_LONGEST_WAIT = 30.0
"""Seconds between two tries, also where the endpoint asks for more."""

_PERMANENT = (400, 401, 403, 404, 405, 422)
"""Answers that another try would only repeat."""

_VERDICT = re.compile(r"\[\[\s*(A|B|C|tie)\s*\]\]", re.IGNORECASE)
_BARE = re.compile(r"\W*(A|B|C|tie)\W*", re.IGNORECASE)


class Verdict(StrEnum):
    """Which of two answers is better."""

    A = "A"
    B = "B"
    TIE = "C"


def verdict_in(text: str) -> Verdict | None:
    """The verdict of a judge's words: the last `[[A]]`, `[[B]]` or `[[C]]`, or such a letter alone; None for none."""
    marked = _VERDICT.findall(text)
    bare = _BARE.fullmatch(text)
    word = marked[-1] if marked else bare.group(1) if bare else ""
    if not word:
        return None
    return Verdict.TIE if word.upper() in ("C", "TIE") else Verdict(word.upper())


class Endpoint:
    """A judge's endpoint; may be asked from several threads."""

    def __init__(self, plan: JudgePlan) -> None:
        key = os.environ.get(ENV_JUDGE_KEY, "")
        self._plan = plan
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=plan.timeout_seconds,
            limits=httpx.Limits(max_connections=plan.concurrency),
        )
        self._lock = threading.Lock()
        self._requests = self._retries = self._nonsense = 0
        self.last_trouble = ""
        """What went wrong last, for the message of a failure."""

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def use(self) -> JudgeUse:
        """What was asked so far."""
        return JudgeUse(requests=self._requests, retries=self._retries, nonsense=self._nonsense)

    def ask(self, prompt: str) -> Verdict | None:
        """The verdict on one question; None where there was none after all tries.

        Raises:
            FineTuneError: EvaluationFailed where no other try could help: the key, the model or the address is wrong.
        """
        for number in range(self._plan.retries + 1):
            wait = self._count(number)
            time.sleep(wait)
            try:
                answer = self._client.post(
                    f"{self._plan.endpoint.rstrip('/')}/chat/completions",
                    json={
                        "model": self._plan.model,
                        "messages": [{"role": "user", "content": prompt}],
                        "temperature": 0,
                        "seed": number,
                        "max_tokens": self._plan.max_tokens,
                    },
                )
            except httpx.HTTPError as error:
                self._trouble(f"{type(error).__name__}: {error}")
                continue
            if answer.status_code in _PERMANENT:
                raise _refused(self._plan, answer)
            if answer.status_code != httpx.codes.OK:
                self._trouble(f"HTTP {answer.status_code}: {answer.text[:200]}", answer.headers.get("retry-after"))
                continue
            found = verdict_in(words := _content(answer))
            if found is not None:
                return found
            with self._lock:
                self._nonsense += 1
            self._trouble(f"no verdict in {words[:200]!r}")
        return None

    def _count(self, number: int) -> float:
        """Count a request, and say how long to wait before it: longer each time, by chance, as others wait too."""
        with self._lock:
            self._requests += 1
            self._retries += number > 0
            asked = self._asked_to_wait
            self._asked_to_wait = 0.0
        if number == 0:
            return 0.0
        return min(_LONGEST_WAIT, max(asked, random.uniform(0.5, 1.0) * self._first_wait * 2.0**number))

    _asked_to_wait = 0.0
    _first_wait = 0.25
    """Seconds."""

    def _trouble(self, words: str, retry_after: str | None = None) -> None:
        with self._lock:
            self.last_trouble = words
            try:
                self._asked_to_wait = float(retry_after or 0)
            except ValueError:  # a date
                self._asked_to_wait = 1.0
        log.info("judge: %s", words)


def _content(answer: httpx.Response) -> str:
    """The words of a chat completion; empty where it is none."""
    try:
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _refused(plan: JudgePlan, answer: httpx.Response) -> FineTuneError:
    what = {
        401: "evaluation.judge.apiKeySecretRef: the key is not accepted",
        403: "evaluation.judge.apiKeySecretRef: the key may not use the model",
        404: f"evaluation.judge: {plan.endpoint} knows no model {plan.model!r}, or is no OpenAI-compatible base URL",
    }.get(answer.status_code, f"evaluation.judge: {plan.endpoint} refuses the question")
    return FineTuneError(
        FailureReason.EVALUATION_FAILED,
        f"{what} (HTTP {answer.status_code}: {answer.text[:200]}); the artifact is kept",
    )
