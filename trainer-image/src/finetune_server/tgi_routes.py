"""TGI's routes (docs/developing/library-traps.md): /generate, /generate_stream, /, /info, /health, /metrics.

Differences on purpose: an unknown adapter is 404 (TGI answers from the base model), and settings that this engine does
not have are refused instead of ignored.
"""

import random
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from finetune_server.engine import Ticket
from finetune_server.errors import ApiError
from finetune_server.gate import Gate
from finetune_server.requests import Alternative, FinishReason, GenerationRequest, Token
from finetune_server.sampling import Sampling
from finetune_server.service import Service

_FINISH = {
    FinishReason.LENGTH: "length",
    FinishReason.END_TOKEN: "eos_token",
    FinishReason.STOP_SEQUENCE: "stop_sequence",
}
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "repetition_penalty": (1,),
    "frequency_penalty": (0,),
    "typical_p": (1,),
    "watermark": (False,),
    "decoder_input_details": (False,),
    "truncate": (),
    "grammar": (),
}
"""TGI's parameters that this engine has only one value of; None always passes."""


class Parameters(BaseModel):
    """TGI's GenerateParameters, as far as this engine has them."""

    model_config = ConfigDict(extra="allow")

    adapter_id: str | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    top_k: Annotated[int, Field(gt=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    do_sample: bool = False
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=16)] = []
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    return_full_text: bool | None = None
    details: bool = False
    top_n_tokens: Annotated[int, Field(ge=0, le=5)] | None = None
    """Alternatives per token in `details`; 5 is TGI's default maximum."""

    def sampling(self) -> Sampling:
        """TGI samples when asked to, or when a sampling setting is given (its `ValidParameters`)."""
        is_sampled = self.do_sample or any(value is not None for value in (self.temperature, self.top_k, self.top_p))
        if not is_sampled:
            return Sampling()
        return Sampling(
            temperature=self.temperature or 1.0,
            top_k=self.top_k or 0,
            top_p=self.top_p or 1.0,
            seed=random.getrandbits(63) if self.seed is None else self.seed,
        )

    def refuse_unsupported(self) -> None:
        """Refuse what would otherwise be silently ignored: 422, naming the parameter."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and value not in _NEUTRAL.get(name, ()):
                message = f"parameters.{name[:100]}: not supported by the Transformers engine"
                raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, message)


class GenerateRequest(BaseModel):
    """`POST /generate`."""

    inputs: Annotated[str, Field(min_length=1)]
    parameters: Parameters = Parameters()
    stream: bool = False
    """Only for `POST /`."""


def tgi_router(service: Service, gate: Gate) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(tags=["TGI"])

    @router.post("/generate")
    async def generate(body: GenerateRequest, request: Request) -> Response:
        """Continue a prompt."""
        generation = await _generation(service, body)
        tokens = await service.collect(request, generation)
        return JSONResponse(_answer(body, generation, tokens))

    @router.post("/generate_stream")
    async def generate_stream(body: GenerateRequest) -> Response:
        """Continue a prompt, token by token."""
        ticket = service.submit(await _generation(service, body))
        return StreamingResponse(_events(service, ticket, body), media_type="text/event-stream")

    @router.post("/")
    async def compat(body: GenerateRequest, request: Request) -> Response:
        """What huggingface_hub's client sends when the model is a URL."""
        if body.stream:
            return await generate_stream(body)
        generation = await _generation(service, body)
        return JSONResponse([_answer(body, generation, await service.collect(request, generation))])

    _add_state_routes(router, service, gate)
    return router


def _add_state_routes(router: APIRouter, service: Service, gate: Gate) -> None:
    """What kubelet, Prometheus and people ask, rather than clients."""

    @router.get("/health")
    async def health() -> Response:
        """200 only while requests would be answered."""
        if gate.is_draining:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "this server is shutting down", retry_after=1)
        service.engine.ready_model()
        return Response()

    @router.get("/info")
    async def info() -> dict[str, Any]:
        """What is served, in TGI's terms."""
        return _info(service)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _info(service: Service) -> dict[str, Any]:
    model = service.engine.ready_model()
    return {
        "model_id": service.plan.name,
        "model_sha": service.plan.base.digest,
        "model_dtype": str(model.dtype),
        "model_device_type": model.device.type,
        "max_concurrent_requests": service.plan.max_queue,
        "max_input_tokens": service.max_total_tokens - 1,
        "max_total_tokens": service.max_total_tokens,
        "max_best_of": 1,
        "max_stop_sequences": 16,
        "version": version("finetune-operator"),
        "router": "finetune_server",
    }


async def _generation(service: Service, body: GenerateRequest) -> GenerationRequest:
    parameters = body.parameters
    parameters.refuse_unsupported()
    served = service.models[0]
    if parameters.adapter_id is not None:
        served = service.find(parameters.adapter_id, "parameters.adapter_id")
    prompt = await service.encode(body.inputs)
    return GenerationRequest(
        model=served.name,
        adapter=served.key,
        prompt=prompt,
        max_tokens=service.answer_length(prompt, parameters.max_new_tokens, "parameters.max_new_tokens"),
        sampling=parameters.sampling(),
        top_logprobs=(parameters.top_n_tokens or 0) if parameters.details else 0,
        stop=tuple(parameters.stop),
        keeps_stop=True,
    )


def _answer(body: GenerateRequest, generation: GenerationRequest, tokens: Sequence[Token]) -> dict[str, Any]:
    text = _full_text(body, "".join(token.text for token in tokens))
    if not body.parameters.details:
        return {"generated_text": text}
    listed: dict[str, Any] = {"prefill": [], "tokens": [_token(token) for token in tokens]}
    if body.parameters.top_n_tokens:
        listed["top_tokens"] = [[_token(one) for one in token.top] for token in tokens]
    return {"generated_text": text, "details": _ending(generation, tokens[-1], len(tokens)) | listed}


async def _events(service: Service, ticket: Ticket, body: GenerateRequest) -> AsyncIterator[bytes]:
    index = 0
    text = ""
    try:
        async for tokens in service.stream(ticket):
            told = b""
            for token in tokens:
                index += 1
                text += token.text
                # Clients append token.text, so it is what became certain, not the token alone.
                part = _token(token) | {"text": token.text}
                event: dict[str, Any] = {"index": index, "token": part, "generated_text": None, "details": None}
                if token.finish is not None:
                    event["generated_text"] = _full_text(body, text)
                    event["details"] = _ending(ticket.row.request, token, index)
                told += b"data:" + to_json(event) + b"\n\n"
            yield told
    except ApiError as error:
        yield b"data:" + to_json(error.as_tgi()) + b"\n\n"
    finally:
        ticket.cancel()


def _full_text(body: GenerateRequest, text: str) -> str:
    return body.inputs + text if body.parameters.return_full_text else text


def _ending(generation: GenerationRequest, last: Token, count: int) -> dict[str, Any]:
    seed = None if generation.sampling.is_greedy else generation.sampling.seed
    reason = _FINISH[last.finish] if last.finish else None
    return {"finish_reason": reason, "generated_tokens": count, "seed": seed}


def _token(token: Token | Alternative) -> dict[str, Any]:
    return {"id": token.id, "text": token.piece, "logprob": token.logprob, "special": token.special}
