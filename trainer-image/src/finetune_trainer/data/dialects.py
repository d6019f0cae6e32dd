"""Other tools' ways to write a conversation, as messages: Alpaca's columns, ShareGPT's turns."""

import json
from collections.abc import Mapping
from typing import Any

from finetune_trainer.data.rows import RowFaultError
from finetune_trainer.data.strictjson import kind_of

Turns = list[dict[str, Any]]

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""ShareGPT's speakers, as its many writers name them."""

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns in which datasets with pictures and sound keep them."""


def alpaca(value: Mapping[str, Any]) -> dict[str, Any]:
    """`instruction` (with `input` below it) and `output`, after `system` and the pairs of `history`, as messages.

    Raises:
        RowFaultError: Naming the column that is no text.
    """
    asked = "\n\n".join(part for part in (_text(value, "instruction"), _text(value, "input")) if part)
    turns: Turns = [{"role": "system", "content": system}] if (system := _text(value, "system")) else []
    for pair in value.get("history") or ():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowFaultError("history is not a list of pairs of texts")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return {
        "messages": [
            *turns,
            {"role": "user", "content": asked},
            {"role": "assistant", "content": _text(value, "output")},
        ]
    }


def share_gpt(value: Mapping[str, Any]) -> dict[str, Any]:
    """`conversations`, after `system`, as messages; `tools` as it is.

    Raises:
        RowFaultError: Naming the turn and what is wrong with it.
    """
    turns = turns_of("conversations", value["conversations"])
    if (system := _text(value, "system")) and isinstance(turns, list):
        turns = [{"role": "system", "content": system}, *turns]
    return {"messages": turns, "tools": value.get("tools") or None}


def turns_of(column: str, value: object) -> object:
    """Turns in our words, where they are in ShareGPT's; anything else as it is.

    A table's cell may hold them as JSON text.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowFaultError(f"{column} is text that begins like a list and is no JSON: {error}") from error
    if not isinstance(value, list):
        return value
    return [_turn(f"{column}[{number}]", turn) for number, turn in enumerate(value)]


def _turn(place: str, turn: object) -> object:
    if not isinstance(turn, dict) or "from" not in turn or "role" in turn:
        return turn
    speaker, said = turn["from"], turn.get("value")
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise RowFaultError(f"{place}.from is {speaker!r}; it may be {', '.join(_ROLES)}")
    rest = {key: item for key, item in turn.items() if key not in ("from", "value")}
    if speaker == "function_call":
        return {"role": role, "content": "", "tool_calls": _calls(f"{place}.value", said), **rest}
    return {"role": role, "content": said, **rest}


def _calls(place: str, value: object) -> object:
    """One call or a list of them, as JSON text in ShareGPT's files."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowFaultError(f"{place}: a function_call is JSON with name and arguments: {error}") from error
    return value if isinstance(value, list) else [value]


def _text(value: Mapping[str, Any], column: str) -> str:
    text = value.get(column)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RowFaultError(f"column {column!r} holds {kind_of(text)}, not text")
    return text
