"""What both families of routes share: the models by name, prompts to tokens, limits, and waiting for answers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import Request

from finetune_contract.serving import ServingPlan
from finetune_server.engine import Engine, Ticket
from finetune_server.errors import ApiError, bad_request
from finetune_server.metrics import Metrics
from finetune_server.model import BASE_ALIASES, LanguageModel, Served
from finetune_server.prompts import answer_length, encode, render
from finetune_server.requests import GenerationRequest, Token

ResultT = TypeVar("ResultT")

MODEL_NOT_FOUND = "model_not_found"
"""OpenAI's code."""


class Service:
    """One plan being served."""

    def __init__(self, plan: ServingPlan, models: Sequence[Served], engine: Engine, metrics: Metrics) -> None:
        self.plan = plan
        self.models = tuple(models)
        self.engine = engine
        self.metrics = metrics
        self.started = int(time.time())
        self._by_name = {model.name: model for model in models} | dict.fromkeys(BASE_ALIASES, models[0])
        # One thread: tokenizers are not safe to share, and a long prompt must not hold up the event loop.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    def find(self, name: str, param: str = "model") -> Served:
        """The model of a name.

        Raises:
            ApiError: 404, naming the models that exist.
        """
        if name in self._by_name:
            return self._by_name[name]
        names = ", ".join(model.name for model in self.models)
        message = f"The model {name[:200]!r} does not exist; this deployment serves: {names}"
        raise ApiError(HTTPStatus.NOT_FOUND, message, code=MODEL_NOT_FOUND, param=param)

    @property
    def max_total_tokens(self) -> int:
        """Prompt and answer together."""
        context = self.engine.ready_model().context
        return min(context, self.plan.max_total_tokens or context)

    async def encode(self, text: str) -> list[int]:
        """A prompt as the tokenizer writes it by default (`prompts.encode`)."""
        return await self._with_tokenizer(lambda model: encode(model, text))

    async def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
        """A conversation as the model's chat template writes it (`prompts.render`)."""
        return await self._with_tokenizer(lambda model: render(model, messages, tools))

    async def _with_tokenizer(self, work: Callable[[LanguageModel], ResultT]) -> ResultT:
        model = self.engine.ready_model()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work, model)

    def answer_length(self, prompt: Sequence[int], wanted: int | None, param: str) -> int:
        """How many tokens may be generated (`prompts.answer_length`)."""
        return answer_length(self.max_total_tokens, prompt, wanted, param)

    def submit(self, request: GenerationRequest) -> Ticket:
        """Queue a request for a stream (503 or 429 when that is not possible); whoever submits reads or cancels."""
        return self.engine.submit(request, is_whole=False)

    async def collect(self, request: Request, generation: GenerationRequest) -> list[Token]:
        """The whole answer; when the client leaves before, its row is freed."""
        ticket = self.engine.submit(generation, is_whole=True)

        async def read() -> list[Token]:
            return [token async for tokens in self.engine.tokens(ticket) for token in tokens]

        return await _while_connected(request, read())

    async def stream(self, ticket: Ticket) -> AsyncIterator[list[Token]]:
        """The tokens of a submitted request, as many at once as have arrived."""
        async with contextlib.aclosing(self.engine.tokens(ticket)) as arriving:
            async for tokens in arriving:
                yield tokens


async def _while_connected(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Do some work unless the client disconnects first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise bad_request("the client has disconnected")
    finally:
        for one in (task, gone):
            one.cancel()
        # Cancelling is not done until the tasks have run: only then is the row free.
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
