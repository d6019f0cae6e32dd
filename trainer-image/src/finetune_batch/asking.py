"""From an item to what the model is asked, or to what is wrong with it: as the server would have said it."""

from dataclasses import dataclass
from http import HTTPStatus

from pydantic import ValidationError

from finetune_batch.items import Fault, Item
from finetune_batch.lines import URLS
from finetune_contract.batching import BatchPlan
from finetune_server import openai_shape as shape
from finetune_server.errors import ApiError, bad_request, describe
from finetune_server.model import LanguageModel, Served
from finetune_server.openai_wire import ChatRequest, CompletionRequest
from finetune_server.prompts import answer_length, encode, known_tokens, render
from finetune_server.requests import GenerationRequest
from finetune_server.sampling import Sampling


@dataclass(frozen=True)
class Ask:
    """A request that the model can be asked."""

    item: Item
    request: GenerationRequest
    writer: shape.Shape
    """How its answer is written."""


class Asker:
    """Makes requests of items, for one model."""

    def __init__(self, plan: BatchPlan, model: LanguageModel, served: Served) -> None:
        """Take the plan, whose settings hold where a request says nothing, and what answers."""
        self._plan = plan
        self._model = model
        self._served = served

    def ask(self, item: Item) -> Ask | Fault:
        """The request of an item, or why there is none."""
        if item.fault is not None:
            return item.fault
        try:
            return self._row(item) if item.prompt is not None else self._request(item)
        except ApiError as error:
            return Fault(error.code or "invalid_request_error", str(error), error.param, int(error.status))

    def _row(self, item: Item) -> Ask:
        settings = self._plan.sampling
        prompt = item.prompt or []
        request = GenerationRequest(
            model=self._served.name,
            adapter=self._served.key,
            prompt=prompt,
            max_tokens=answer_length(self._model.context, prompt, settings.max_tokens, "spec.sampling.maxTokens"),
            sampling=Sampling(settings.temperature, top_p=settings.top_p, seed=self._seed(item)),
            stop=settings.stop,
        )
        return Ask(
            item, request, shape.Chat(logprobs=False) if item.url == URLS[0] else shape.Completion(logprobs=False)
        )

    def _request(self, item: Item) -> Ask:
        body = self._body(item)
        if body.model != self._plan.name:
            message = f"The model {body.model[:200]!r} does not exist; this batch is answered by: {self._plan.name}"
            raise ApiError(HTTPStatus.NOT_FOUND, message, code="model_not_found", param="model")
        if body.stream:
            raise bad_request("stream: a batch has no streams; leave it out", "stream")
        body.refuse_unsupported()
        writer: shape.Shape
        if isinstance(body, ChatRequest):
            prompt = render(self._model, [message.for_template() for message in body.messages], body.tools)
            alternatives, writer = body.alternatives, shape.Chat(logprobs=bool(body.logprobs))
        else:
            given = body.one_prompt()
            prompt = encode(self._model, given) if isinstance(given, str) else known_tokens(self._model, given)
            alternatives, writer = body.logprobs or 0, shape.Completion(logprobs=body.logprobs is not None)
        most = answer_length(self._model.context, prompt, body.max_tokens, "max_tokens")
        return Ask(item, body.generation(self._served.name, self._served.key, prompt, most, alternatives), writer)

    def _body(self, item: Item) -> ChatRequest | CompletionRequest:
        """The body with the plan's settings where it has none of its own: greedy, not OpenAI's temperature of 1."""
        settings = self._plan.sampling
        kind = ChatRequest if item.url == URLS[0] else CompletionRequest
        try:
            body = kind.model_validate(item.body)
        except ValidationError as error:
            message, param = describe(error.errors())
            raise bad_request(message, param) from error
        wanted = body.wanted_tokens if isinstance(body, ChatRequest) else body.max_tokens
        defaults = {
            "max_tokens": wanted or settings.max_tokens,
            "temperature": settings.temperature if body.temperature is None else body.temperature,
            "top_p": settings.top_p if body.top_p is None else body.top_p,
            "stop": list(settings.stop) if body.stop is None else body.stop,
            "seed": self._seed(item) if body.seed is None else body.seed,
        }
        return body.model_copy(update=defaults)

    def _seed(self, item: Item) -> int:
        # Rows with equal prompts are to be answered differently, and every time alike.
        return (self._plan.sampling.seed * 1_000_003 + item.number) & (2**63 - 1)
