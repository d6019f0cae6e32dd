"""The engine as the prober sees it: OpenAI's routes, or TGI's, and a health check."""

from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import BaseModel, ValidationError

from finetune_contract.serving import EngineType
from finetune_prober.judgement import Answer, AnswerToken

_HEALTH_SECONDS = 3.0
_PROOF_SECONDS = 60.0
_TOP = 5
"""Alternatives per token; OpenAI's most."""


class EngineBusyError(Exception):
    """The engine cannot answer now (starting, full, gone): try again."""


class EngineRefusedError(Exception):
    """The engine answers, but not as an engine that serves this plan would."""


class _Logprobs(BaseModel):
    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]
    text_offset: tuple[int, ...]

    def rows(self) -> tuple[AnswerToken, ...]:
        """As one list; ValueError when the columns differ in length."""
        columns = zip(self.tokens, self.text_offset, self.token_logprobs, self.top_logprobs, strict=True)
        return tuple(AnswerToken(*column) for column in columns)


class _Choice(BaseModel):
    text: str
    logprobs: _Logprobs


class _Completion(BaseModel):
    choices: tuple[_Choice, ...]


class _TgiToken(BaseModel):
    text: str
    logprob: float
    special: bool = False


class _TgiDetails(BaseModel):
    tokens: tuple[_TgiToken, ...]
    top_tokens: tuple[tuple[_TgiToken, ...], ...]

    def rows(self) -> tuple[AnswerToken, ...]:
        """As OpenAI's would be; ValueError when the lists differ in length."""
        rows, offset = [], 0
        for token, top in zip(self.tokens, self.top_tokens, strict=True):
            rows.append(AnswerToken(token.text, offset, token.logprob, {other.text: other.logprob for other in top}))
            # The answer's text is without special tokens.
            offset += 0 if token.special else len(token.text)
        return tuple(rows)


class _TgiAnswer(BaseModel):
    generated_text: str
    details: _TgiDetails


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: tuple[_Model, ...]


class Engine:
    """A client of one engine."""

    def __init__(self, url: str, session: aiohttp.ClientSession, base_name: str, api_keys: Path | None = None) -> None:
        """What to ask.

        Args:
            url: The engine's.
            session: For its requests.
            base_name: The model name that the engine's base model, merged or not, has.
            api_keys: A file of keys, one in a line, if the engine wants one; read anew for each question.
        """
        self._api_keys = api_keys
        self._url = url.rstrip("/")
        self._session = session
        self._base_name = base_name

    async def check_health(self) -> None:
        """Return when the engine says it is healthy.

        Raises:
            EngineBusyError: When it does not, or is not there.
            TimeoutError: When it does not say in time.
        """
        timeout = aiohttp.ClientTimeout(total=_HEALTH_SECONDS)
        try:
            async with self._session.get(f"{self._url}/health", timeout=timeout) as response:
                if response.status != HTTPStatus.OK:
                    raise EngineBusyError(f"/health answers {response.status}")
        except aiohttp.ClientError as error:
            raise EngineBusyError(f"no connection to the engine: {error}") from error

    async def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that the engine does not list.

        Raises:
            EngineBusyError: When it is not there.
            EngineRefusedError: When the answer is not a list of models.
        """
        document = await self._ask("GET", "/v1/models", None)
        try:
            listed = {model.id for model in _Models.model_validate(document).data}
        except ValidationError as error:
            raise EngineRefusedError(f"/v1/models: {error.errors()[0]['msg']}") from error
        return tuple(name for name in names if name not in listed)

    async def complete(self, model: str, prompt: str, max_tokens: int) -> Answer:
        """A greedy answer with log-probabilities.

        Raises:
            EngineBusyError: When it is not there, full, or failed.
            EngineRefusedError: When it refuses, or leaves the log-probabilities out.
        """
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": _TOP}
        document = await self._ask("POST", "/v1/completions", body)
        try:
            (choice,) = _Completion.model_validate(document).choices
            return Answer(choice.text, choice.logprobs.rows())
        except (ValidationError, ValueError) as error:
            raise EngineRefusedError(f"/v1/completions for {model}: an answer without log-probabilities") from error

    def _headers(self) -> dict[str, str]:
        if self._api_keys is None:
            return {}
        try:
            keys = [line.strip() for line in self._api_keys.read_text().splitlines() if line.strip()]
        except OSError as error:
            raise EngineRefusedError(f"{self._api_keys}: {error.strerror}") from error
        if not keys:
            raise EngineRefusedError(f"{self._api_keys}: there is no key in the Secret of spec.apiKeysSecretRef")
        return {"Authorization": f"Bearer {keys[0]}"}

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> object:
        timeout = aiohttp.ClientTimeout(total=_PROOF_SECONDS)
        try:
            url, headers = self._url + path, self._headers()
            async with self._session.request(method, url, json=body, headers=headers, timeout=timeout) as response:
                if (
                    response.status == HTTPStatus.TOO_MANY_REQUESTS
                    or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
                ):
                    raise EngineBusyError(f"{path} answers {response.status}")
                if response.status != HTTPStatus.OK:
                    text = (await response.text())[:300]
                    raise EngineRefusedError(f"{path} answers {response.status}: {text}")
                document: object = await response.json()
                return document
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise EngineBusyError(f"{path}: {error or type(error).__name__}") from error


class TgiEngine(Engine):
    """A client of Text Generation Inference.

    It lists no adapters and answers an unknown one from the base, so only the answers tell whether one is served.
    """

    async def missing(self, names: Iterable[str]) -> tuple[str, ...]:  # noqa: ARG002 - nobody says
        """None."""
        return ()

    async def complete(self, model: str, prompt: str, max_tokens: int) -> Answer:
        """A greedy answer with log-probabilities, by `/generate`: TGI's completions have none."""
        parameters: dict[str, Any] = {
            "max_new_tokens": max_tokens,
            "do_sample": False,
            "details": True,
            "top_n_tokens": _TOP,
        }
        if model != self._base_name:
            parameters["adapter_id"] = model
        document = await self._ask("POST", "/generate", {"inputs": prompt, "parameters": parameters})
        try:
            answer = _TgiAnswer.model_validate(document)
            return Answer(answer.generated_text, answer.details.rows())
        except (ValidationError, ValueError) as error:
            raise EngineRefusedError(f"/generate for {model}: an answer without log-probabilities") from error


ENGINES: dict[EngineType, type[Engine]] = {
    EngineType.TRANSFORMERS: Engine,
    EngineType.VLLM: Engine,
    EngineType.TGI: TgiEngine,
}
