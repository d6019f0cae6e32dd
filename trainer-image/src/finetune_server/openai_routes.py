"""OpenAI's routes: /v1/models, /v1/completions, /v1/chat/completions."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic_core import to_json

from finetune_server import openai_shape as shape
from finetune_server.engine import Ticket
from finetune_server.errors import ApiError
from finetune_server.model import Served
from finetune_server.openai_wire import ChatRequest, CompletionRequest, OpenAIRequest
from finetune_server.prompts import known_tokens
from finetune_server.requests import GenerationRequest, Token
from finetune_server.service import Service


def openai_router(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """Every model that can be asked for: the base and each adapter."""
        return {"object": "list", "data": [_card(service, index) for index in range(len(service.models))]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One model."""
        return _card(service, service.models.index(service.find(name)))

    @router.post("/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue a prompt, sent to the model as it is."""
        generation = await _completion(service, body)
        return await _respond(service, request, body, generation, shape.Completion(logprobs=body.logprobs is not None))

    @router.post("/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, rendered by the base model's chat template."""
        generation = await _chat(service, body)
        return await _respond(service, request, body, generation, shape.Chat(logprobs=bool(body.logprobs)))

    return router


async def _completion(service: Service, body: CompletionRequest) -> GenerationRequest:
    served = service.find(body.model)
    given = body.one_prompt()
    prompt = (
        await service.encode(given) if isinstance(given, str) else known_tokens(service.engine.ready_model(), given)
    )
    return _generation(service, body, served, prompt, body.logprobs or 0)


async def _chat(service: Service, body: ChatRequest) -> GenerationRequest:
    served = service.find(body.model)
    prompt = await service.render([message.for_template() for message in body.messages], body.tools)
    return _generation(service, body, served, prompt, body.alternatives)


def _generation(
    service: Service, body: CompletionRequest | ChatRequest, served: Served, prompt: list[int], alternatives: int
) -> GenerationRequest:
    body.refuse_unsupported()
    max_tokens = service.answer_length(prompt, body.wanted_tokens, "max_tokens")
    return body.generation(served.name, served.key, prompt, max_tokens, alternatives)


def _card(service: Service, index: int) -> dict[str, Any]:
    model = service.models[index]
    parent = None if index == 0 else service.models[0].name
    return {
        "id": model.name,
        "object": "model",
        "created": service.started,
        "owned_by": "finetune-operator",
        "root": model.root,
        "parent": parent,
    }


async def _respond(
    service: Service, request: Request, body: OpenAIRequest, generation: GenerationRequest, writer: shape.Shape
) -> Response:
    head = {"id": f"{writer.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    if body.stream:
        ticket = service.submit(generation)
        events = _events(service, ticket, head, writer, wants_usage=body.wants_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    tokens = await service.collect(request, generation)
    usage = shape.usage(len(generation.prompt), len(tokens))
    return JSONResponse({**head, "object": writer.kind, "choices": [writer.choice(tokens)], "usage": usage})


async def _events(
    service: Service, ticket: Ticket, head: dict[str, Any], writer: shape.Shape, *, wants_usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events of one answer; an error after the first byte can only be an event, too."""
    # All events of an answer begin alike, and there is one for each token.
    begin = b"data: " + to_json({**head, "object": writer.chunk_kind})[:-1] + b',"choices":'

    def event(choices: list[dict[str, Any]], more: bytes = b"") -> bytes:
        return b"".join((begin, to_json(choices), more, b"}\n\n"))

    count = 0
    try:
        for choice in writer.opening():
            yield event([choice])
        async for tokens in service.stream(ticket):
            count += len(tokens)
            # An event per token, and all that are there in one write.
            if told := b"".join(event([writer.delta(token)]) for token in tokens if _is_worth_sending(token, writer)):
                yield told
        if wants_usage:
            yield event([], b',"usage":' + to_json(shape.usage(len(ticket.row.request.prompt), count)))
        yield b"data: [DONE]\n\n"
    except ApiError as error:
        yield b"data: " + to_json(error.as_openai()) + b"\n\n"
    finally:
        ticket.cancel()


def _is_worth_sending(token: Token, writer: shape.Shape) -> bool:
    return bool(token.text) or token.finish is not None or writer.logprobs
