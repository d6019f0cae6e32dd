"""Conversations as lists of turns, and what can be wrong with them."""

import json
from collections.abc import Iterable

from finetune_trainer.data.strictjson import kind_of

_ROLES = ("system", "user", "assistant", "tool")

TOOL_CALLS = "tool_calls"

_MORE = {"assistant": (TOOL_CALLS,), "tool": ("name", "tool_call_id")}
"""What a turn may have beside role and content, as in OpenAI's and transformers' messages."""

TURN_FIELDS = ("role", "content", TOOL_CALLS, "name", "tool_call_id")
"""All fields of a turn, each a text; the calls are JSON."""


class RowFaultError(Exception):
    """What is wrong with one row; the caller knows its line and whether it may be tolerated."""


def conversation(column: str, value: object, *, last: str) -> list[dict[str, str]]:
    """The turns of a conversation: perhaps a system's, then user and assistant in turn, ending with `last`.

    An assistant's turn that calls tools is followed by the tools' answers, and these by the assistant.

    Raises:
        RowFaultError: Naming the turn and what is wrong with it.
    """
    if not isinstance(value, list) or not value:
        raise RowFaultError(f"{column} is {kind_of(value) if value != [] else 'empty'}, not a list of turns")
    turns = [_turn(column, number, turn) for number, turn in enumerate(value)]
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


def _after(turn: dict[str, str]) -> tuple[str, ...]:
    """Who may speak next."""
    if turn["role"] == "user":
        return ("assistant",)
    if turn["role"] == "tool":
        return ("tool", "assistant")
    return ("tool",) if TOOL_CALLS in turn else ("user",)


def _turn(column: str, number: int, turn: object) -> dict[str, str]:
    place = f"{column}[{number}]"
    if not isinstance(turn, dict):
        raise RowFaultError(f"{place} is {kind_of(turn)}, not an object with role and content")
    role, content = turn.get("role"), turn.get("content")
    if role not in _ROLES:
        raise RowFaultError(f"{place}.role is {role!r}; it may be {listed(_ROLES)}")
    more = _MORE.get(role, ())
    for key, value in turn.items():
        if key not in ("role", "content", *more) and value is not None:
            raise RowFaultError(
                f"{place} has {key!r}; a turn of {role!r} has {listed(('role', 'content', *more))} only"
            )
    found = {key: turn[key] for key in more if turn.get(key) is not None}
    if TOOL_CALLS in found:
        found[TOOL_CALLS] = _calls(f"{place}.{TOOL_CALLS}", found[TOOL_CALLS])
        content = "" if content is None else content
    if not isinstance(content, str):
        raise RowFaultError(f"{place}.content is {kind_of(content)}; only text is supported")
    for key, value in found.items():
        if not isinstance(value, str):
            raise RowFaultError(f"{place}.{key} is {kind_of(value)}, not text")
    return {"role": role, "content": content, **found}


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
            except ValueError as error:
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
    except ValueError as error:
        raise RowFaultError(f"tools is no JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowFaultError(f"tools is {kind_of(tools)}, not a list of objects")
    return json.dumps(tools, ensure_ascii=False, sort_keys=True)


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names) or "none"
