"""Conversations as lists of turns, and what can be wrong with them."""

import json
from collections.abc import Iterable
from typing import Any

from finetune_trainer.data.dialects import turns_of
from finetune_trainer.data.rows import RowFaultError
from finetune_trainer.data.strictjson import kind_of

_ROLES = ("system", "user", "assistant", "tool")

_SAME = {"developer": "system", "function": "tool"}
"""OpenAI's other names for them."""

TOOL_CALLS = "tool_calls"
WEIGHT = "weight"

_MORE = {
    "system": ("name",),
    "user": ("name",),
    "assistant": (TOOL_CALLS, "name", WEIGHT),
    "tool": ("name", "tool_call_id"),
}
"""What a turn may have beside role and content, as in OpenAI's and transformers' messages."""

TURN_FIELDS = ("role", "content", TOOL_CALLS, "name", "tool_call_id", WEIGHT)
"""All fields of a turn, each a text (the calls are JSON) but the weight, a number: 0 where the turn is not learnt."""

Turn = dict[str, Any]


def conversation(column: str, value: object, *, last: str, is_weighted: bool = False) -> list[Turn]:
    """The turns of a conversation: perhaps a system's, then user and assistant in turn, ending with `last`.

    An assistant's turn that calls tools is followed by the tools' answers, and these by the assistant. A turn keeps a
    weight only if that is 0 and matters (`is_weighted`).

    Raises:
        RowFaultError: Naming the turn and what is wrong with it.
    """
    value = turns_of(column, value)
    if not isinstance(value, list) or not value:
        raise RowFaultError(f"{column} is {kind_of(value) if value != [] else 'empty'}, not a list of turns")
    turns = [_turn(column, number, turn) for number, turn in enumerate(value)]
    for turn in turns:
        if turn.get(WEIGHT) != 0 or not is_weighted:
            turn.pop(WEIGHT, None)
    first = 1 if turns[0]["role"] == "system" else 0
    allowed: tuple[str, ...] = ("user",)
    for number, turn in enumerate(turns[first:], start=first):
        if turn["role"] not in allowed:
            wanted = " or ".join(repr(role) for role in allowed)
            raise RowFaultError(f"{column}[{number}].role is {turn['role']!r} where {wanted} has to be")
        allowed = _after(turn)
    role = turns[-1]["role"]
    if role != last and not (last == "user" and role == "tool"):
        whose = "assistant's answer" if last == "assistant" else "user's or a tool's"
        raise RowFaultError(f"{column} end with {role!r}; the last one has to be the {whose}")
    return turns


def learnt_part(turns: list[Turn]) -> list[Turn]:
    """The turns up to the last one that is learnt: what comes after it teaches nothing; none if none is learnt."""
    learnt = [number for number, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get(WEIGHT) != 0]
    return turns[: learnt[-1] + 1] if learnt else []


def _after(turn: Turn) -> tuple[str, ...]:
    """Who may speak next."""
    if turn["role"] == "user":
        return ("assistant",)
    if turn["role"] == "tool":
        return ("tool", "assistant")
    return ("tool",) if TOOL_CALLS in turn else ("user",)


def _turn(column: str, number: int, turn: object) -> Turn:
    place = f"{column}[{number}]"
    if not isinstance(turn, dict):
        raise RowFaultError(f"{place} is {kind_of(turn)}, not an object with role and content")
    role = turn.get("role")
    role = _SAME.get(role, role) if isinstance(role, str) else role
    if role not in _ROLES:
        raise RowFaultError(f"{place}.role is {role!r}; it may be {listed(_ROLES)}")
    if role == "assistant" and turn.get("function_call") is not None and TOOL_CALLS not in turn:  # OpenAI's old form
        turn = {TOOL_CALLS: [turn["function_call"]], **{k: v for k, v in turn.items() if k != "function_call"}}
    more = _MORE[role]
    for key, value in turn.items():
        if key not in ("role", "content", *more) and value is not None:
            raise RowFaultError(
                f"{place} has {key!r}; a turn of {role!r} has {listed(('role', 'content', *more))} only"
            )
    found = {key: _field(f"{place}.{key}", key, turn[key]) for key in more if turn.get(key) is not None}
    content = turn.get("content")
    return {
        "role": role,
        "content": "" if content is None and TOOL_CALLS in found else _said(place, content),
        **found,
    }


def _field(place: str, key: str, value: object) -> str | int:
    """What a turn has beside role and content."""
    if key == TOOL_CALLS:
        return _calls(place, value)
    if key == WEIGHT:
        if isinstance(value, bool) or value not in (0, 1):
            raise RowFaultError(f"{place} is {value!r}; it may be 0 (not learnt) or 1")
        return 1 if value else 0
    if not isinstance(value, str):
        raise RowFaultError(f"{place} is {kind_of(value)}, not text")
    return value


def _said(place: str, content: object) -> str:
    """A turn's text; parts, as OpenAI writes them, are joined if each is text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RowFaultError(f"{place}.content is {kind_of(content)}; only text is supported")
    texts = []
    for number, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type", "an object") if isinstance(part, dict) else kind_of(part)
            raise RowFaultError(f"{place}.content[{number}] is {kind}; only text is learnt from, no pictures or sound")
        texts.append(text)
    return "".join(texts)


def _calls(place: str, value: object) -> str:
    """Calls of tools as JSON text, their arguments as objects: what chat templates expect."""
    if not isinstance(value, list) or not value:
        raise RowFaultError(f"{place} is {kind_of(value) if value != [] else 'empty'}, not a list of calls")
    calls = []
    for number, call in enumerate(value):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowFaultError(f"{place}[{number}] has no function with a name")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):  # OpenAI's form
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError) as error:
                raise RowFaultError(f"{place}[{number}]: its arguments are no JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise RowFaultError(f"{place}[{number}]: its arguments are {kind_of(arguments)}, not an object")
        named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**named, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return json.dumps(calls, ensure_ascii=False, sort_keys=True)


def tools_of(value: object) -> str:
    """Descriptions of tools, a list or JSON text of one, as JSON text.

    Raises:
        RowFaultError: They are no list of objects.
    """
    try:
        tools = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise RowFaultError(f"tools is no JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowFaultError(f"tools is {kind_of(tools)}, not a list of objects")
    return json.dumps(tools, ensure_ascii=False, sort_keys=True)


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names) or "none"
