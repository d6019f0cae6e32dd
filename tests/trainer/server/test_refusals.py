"""Bad requests: each is refused in its API's own shape, and harms nobody else."""

from typing import Any

import httpx
import pytest

from tests.trainer.server.running import Running

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
OK = {"model": "tiny", "prompt": "json", "max_tokens": 1}
TALK = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

REFUSED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "negative temperature": (COMPLETIONS, {**OK, "temperature": -1}, 400, "temperature: "),
    "temperature as NaN text": (COMPLETIONS, {**OK, "temperature": "NaN"}, 400, "temperature: "),
    "top_p of zero": (COMPLETIONS, {**OK, "top_p": 0}, 400, "top_p: "),
    "no tokens wanted": (COMPLETIONS, {**OK, "max_tokens": 0}, 400, "max_tokens: "),
    "more than the context": (COMPLETIONS, {**OK, "max_tokens": 2048}, 400, "maximum context length is 2048"),
    "a long prompt": (COMPLETIONS, {**OK, "prompt": "json " * 3000}, 400, "maximum context length is 2048"),
    "an empty prompt": (COMPLETIONS, {**OK, "prompt": ""}, 400, "no tokens"),
    "several prompts": (COMPLETIONS, {**OK, "prompt": ["a", "b"]}, 400, "one per request"),
    "a token from elsewhere": (COMPLETIONS, {**OK, "prompt": [1, 99999]}, 400, "token 99999"),
    "several answers": (COMPLETIONS, {**OK, "n": 2}, 400, "n: "),
    "echo": (COMPLETIONS, {**OK, "echo": True}, 400, "echo: "),
    "a field nobody knows": (COMPLETIONS, {**OK, "tempreature": 1}, 400, "supplied: tempreature"),
    "an empty stop sequence": (COMPLETIONS, {**OK, "stop": [""]}, 400, "stop."),
    "no model": (COMPLETIONS, {"prompt": "json"}, 400, "model: is required"),
    "no messages": (CHAT, {**TALK, "messages": []}, 400, "messages: "),
    "a picture": (
        CHAT,
        {**TALK, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        400,
        "'image_url' is not supported",
    ),
    "alternatives without logprobs": (CHAT, {**TALK, "top_logprobs": 2}, 400, "set logprobs"),
    "TGI: no tokens wanted": ("/generate", {"inputs": "a", "parameters": {"max_new_tokens": 0}}, 422, "max_new_tokens"),
    "TGI: no temperature": ("/generate", {"inputs": "a", "parameters": {"temperature": 0}}, 422, "temperature"),
    "TGI: a grammar": ("/generate", {"inputs": "a", "parameters": {"grammar": {"type": "json"}}}, 422, "grammar"),
    "TGI: nothing": ("/generate_stream", {"inputs": ""}, 422, "inputs"),
}


@pytest.mark.parametrize(("path", "body", "status", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(server: Running, path: str, body: dict[str, Any], status: int, says: str) -> None:
    answer = httpx.post(server.url + path, json=body)

    assert answer.status_code == status, answer.text
    assert says in message_of(path, answer)


UNREADABLE = {
    "not JSON": (b'{"model": "tiny", ', 400, "the body is not JSON"),
    "not UTF-8": (b'{"model": "tiny", "prompt": "\xff\xfe"}', 400, "UTF-8"),
    "half a surrogate": (rb'{"model": "tiny", "prompt": "\ud800"}', 400, "prompt"),
    "no object": (b"[1, 2]", 400, "body: "),
    "nothing": (b"", 400, "body: is required"),
    "too deep": (b"[" * 100_000, 400, "the body is not JSON"),
    "too large": (b'{"prompt": "' + b"a" * 2**20 + b'"}', 413, "larger than 1048576 bytes"),
}


@pytest.mark.parametrize(("body", "status", "says"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable(server: Running, body: bytes, status: int, says: str) -> None:
    answer = httpx.post(server.url + COMPLETIONS, content=body, headers={"content-type": "application/json"})

    assert answer.status_code == status, answer.text
    assert says in message_of(COMPLETIONS, answer)


def test_a_body_without_a_length_is_limited_too(server: Running) -> None:
    chunks = (b"a" * 2**16 for _ in range(20))

    answer = httpx.post(server.url + COMPLETIONS, content=chunks, headers={"content-type": "application/json"})

    assert answer.status_code == 413


def test_harmless_fields_are_no_error(server: Running) -> None:
    body = {**OK, "user": "me", "n": 1, "logit_bias": None, "presence_penalty": 0, "metadata": {"a": "b"}}

    assert server.post(COMPLETIONS, body).status_code == 200


def message_of(path: str, answer: httpx.Response) -> str:
    """The message, where that API's clients look for it."""
    error = answer.json()["error"]
    return str(error["message"] if path.startswith("/v1/") else error)
