"""Lines of the output and the error file, in OpenAI's batch output format."""

import hashlib
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from finetune_batch.asking import Ask
from finetune_batch.items import Fault, Item
from finetune_server import openai_shape as shape
from finetune_server.errors import ApiError
from finetune_server.requests import Token


def answer_line(key: str, ask: Ask, tokens: Sequence[Token], created: int) -> str:
    """What a request was answered.

    Args:
        key: Of the batch; ids are made of it, so that they stay the same when a shard is answered again.
        ask: The request.
        tokens: All of the answer.
        created: When, in seconds since 1970.
    """
    name = _name(key, ask.item)
    body = {
        "id": f"{ask.writer.prefix}-{name}",
        "object": ask.writer.kind,
        "created": created,
        "model": ask.request.model,
        "choices": [ask.writer.choice(tokens)],
        "usage": shape.usage(len(ask.request.prompt), len(tokens)),
    }
    return _line(name, ask.item, {"status_code": HTTPStatus.OK.value, "request_id": f"req_{name}", "body": body}, None)


def error_line(key: str, item: Item, fault: Fault) -> str:
    """Why a row was not answered: `error` says where in the input; `response` is what a server would have said."""
    name = _name(key, item)
    error = {"code": fault.code, "message": f"{item.place}: {fault.message}", "param": fault.param}
    response = None
    if fault.status is not None:
        told = ApiError(HTTPStatus(fault.status), fault.message, code=fault.code, param=fault.param)
        response = {"status_code": fault.status, "request_id": f"req_{name}", "body": told.as_openai()}
    return _line(name, item, response, error)


def _name(key: str, item: Item) -> str:
    return hashlib.blake2b(f"{key}:{item.number}".encode(), digest_size=12).hexdigest()


def _line(name: str, item: Item, response: dict[str, Any] | None, error: dict[str, Any] | None) -> str:
    document = {"id": f"batch_req_{name}", "custom_id": item.custom_id, "response": response, "error": error}
    # ASCII: no text that a model or a client wrote can break a line or an encoding.
    return json.dumps(document, separators=(",", ":"))
