"""Conversations as lists of turns, and what can be wrong with them."""

from collections.abc import Iterable

from finetune_trainer.data.read import kind_of

_ROLES = ("system", "user", "assistant")


class RowFaultError(Exception):
    """What is wrong with one row; the caller knows its line and whether it may be tolerated."""


def conversation(column: str, value: object, *, last: str) -> list[dict[str, str]]:
    """The turns of a conversation: perhaps a system's, then user and assistant in turn, ending with `last`.

    Raises:
        RowFaultError: Naming the turn and what is wrong with it.
    """
    if not isinstance(value, list) or not value:
        raise RowFaultError(f"{column} is {kind_of(value) if value != [] else 'empty'}, not a list of turns")
    turns = [_turn(column, number, turn) for number, turn in enumerate(value)]
    roles = [turn["role"] for turn in turns]
    first = 1 if roles[0] == "system" else 0
    for number, role in enumerate(roles[first:], start=first):
        wanted = "assistant" if (number - first) % 2 else "user"
        if role != wanted:
            raise RowFaultError(f"{column}[{number}].role is {role!r} where {wanted!r} has to be")
    if roles[-1] != last:
        whose = "assistant's answer" if last == "assistant" else "user's"
        raise RowFaultError(f"{column} end with {roles[-1]!r}; the last one has to be the {whose}")
    return turns


def _turn(column: str, number: int, turn: object) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise RowFaultError(f"{column}[{number}] is {kind_of(turn)}, not an object with role and content")
    for key, value in turn.items():
        if key not in ("role", "content") and value is not None:
            raise RowFaultError(f"{column}[{number}] has {key!r}; only role and content are supported")
    role, content = turn.get("role"), turn.get("content")
    if role not in _ROLES:
        raise RowFaultError(f"{column}[{number}].role is {role!r}; it may be {listed(_ROLES)}")
    if not isinstance(content, str):
        raise RowFaultError(f"{column}[{number}].content is {kind_of(content)}; only text is supported")
    return {"role": role, "content": content}


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names) or "none"
