"""What is said to served models, and their answers as they come: OpenAI's chat API, by way of the API server."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune_cli.errors import CliError
from finetune_cli.facts import Object, items, name_of, part
from finetune_cli.view import last_line
from finetune_contract.paths import POD_PORT

if TYPE_CHECKING:
    from finetune_cli.objects import Objects

PATH = "v1/chat/completions"


@dataclass
class Voice:
    """A model, with what it was told and has answered."""

    model: str
    messages: list[Object] = field(default_factory=list)
    answer: str = ""
    """As far as it has come."""
    failure: CliError | None = None


@dataclass(frozen=True)
class Settings:
    """How answers are made."""

    max_tokens: int = 256
    temperature: float = 0.0
    system: str | None = None


def models_of(deployment: Object, wanted: list[str] | None = None) -> list[str]:
    """The base, by the deployment's own name, and the adapters that are served.

    Raises:
        CliError: no pod is ready, or one of `wanted` is not served.
    """
    name, status = name_of(deployment), part(deployment, "status")
    if not status.get("readyReplicas"):
        ready = next((one for one in items(status, "conditions") if one.get("type") == "Ready"), {})
        why = last_line(ready.get("message")) or "the operator has not seen it yet"
        raise CliError(
            f"{name} serves nobody yet: {why} (`kubectl finetune events {name} --kind deployment` tells more)"
        )
    served = [name, *(str(one.get("name")) for one in items(status, "adapters") if one.get("state") == "Serving")]
    for model in wanted or ():
        if model not in served:
            raise CliError(f"{name} does not serve {model!r} now; it serves {', '.join(served)}")
    return list(wanted or served)


def ask_all(
    objects: "Objects", service: str, voices: list[Voice], text: str, settings: Settings
) -> list[threading.Thread]:
    """Begin to ask each model; each thread ends when its voice has the answer, or a failure."""

    def ask(voice: Voice) -> None:
        try:
            for piece in _answer(objects, service, voice, settings):
                voice.answer += piece
        except CliError as error:
            # What was not answered was not said.
            voice.failure = error
            voice.messages.pop()
        else:
            voice.messages.append({"role": "assistant", "content": voice.answer})

    threads = []
    for voice in voices:
        if settings.system and not voice.messages:
            voice.messages.append({"role": "system", "content": settings.system})
        voice.messages.append({"role": "user", "content": text})
        voice.answer, voice.failure = "", None
        # A daemon: Ctrl-C ends the plugin and does not wait for a model.
        threads.append(threading.Thread(target=ask, args=(voice,), daemon=True))
        threads[-1].start()
    return threads


def _answer(objects: "Objects", service: str, voice: Voice, settings: Settings) -> Iterator[str]:
    body = {
        "model": voice.model,
        "messages": voice.messages,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "stream": True,
    }
    with objects.post_to_service(service, POD_PORT, PATH, body) as pieces:
        yield from words_of(pieces)


def words_of(pieces: Iterator[bytes]) -> Iterator[str]:
    """The text in server-sent events, which may be cut anywhere.

    Raises:
        CliError: the server tells of an error, or ends before the answer does.
    """
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            found = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if found == b"[DONE]":
                return
            if found:
                yield _word(found)
    raise CliError("the answer broke off; try again, and `kubectl get pods` tells if its pod was stopped")


def _word(event: bytes) -> str:
    try:
        said: Any = json.loads(event)
    except ValueError as error:
        raise CliError(f"the server does not speak OpenAI's protocol: {event[:60]!r}") from error
    if failure := part(said, "error"):
        raise CliError(f"the model server says: {last_line(failure.get('message'))}")
    choices = items(said, "choices")
    return str(part(choices[0], "delta").get("content") or "") if choices else ""
