"""The rules of a CRD, evaluated by cel-python."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from finetune_cli.offline.problems import Level, Path, Problem
from finetune_cli.offline.schema import Checked, Schema


def broken_rules(schema: Schema, checked: Checked, path: Path = ()) -> Iterator[Problem]:
    """What rules say against a value, which must have its defaults.

    A rule about something that is wrong already is left out, as the API server does, and one note says how many; rules
    that compare with the object before an edit have nothing to say. One that cannot be evaluated here is a note.
    """
    waiting = 0
    for found in _walk(schema, checked.value, path, checked):
        if isinstance(found, Problem):
            yield found
        else:
            waiting += found
    if waiting:
        yield Problem(path, f"{waiting} of its rules can be looked at when the errors are mended", Level.NOTE)


def _walk(schema: Schema, value: Any, path: Path, checked: Checked) -> Iterator[Problem | int]:  # noqa: ANN401
    """Findings, and numbers of rules that were left out."""
    rules = [one for one in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in one["rule"]]
    if rules and not checked.is_sound(path):
        yield len(rules)
    elif rules:
        converted = json_to_cel(value)
        for rule in rules:
            yield from _broken(rule, converted, path)
    if isinstance(value, dict):
        values = schema.get("additionalProperties")
        for key, child in value.items():
            below = schema.get("properties", {}).get(key, values)
            if isinstance(below, dict):
                yield from _walk(below, child, (*path, key), checked)
    elif isinstance(value, list) and "items" in schema:
        for index, child in enumerate(value):
            yield from _walk(schema["items"], child, (*path, index), checked)


def _broken(rule: dict[str, str], value: Any, path: Path) -> Iterator[Problem]:  # noqa: ANN401 - CEL's
    try:
        holds = _program(rule["rule"]).evaluate({"self": value})
        if not isinstance(holds, celpy.celtypes.BoolType):
            raise CELEvalError(f"the result is {holds!r}")
    except (CELEvalError, CELParseError, NotImplementedError) as error:
        why = " ".join(str(error.args[0] if error.args else error).split())
        yield Problem(path, f"not checked here: rule {rule['rule']!r} ({why})", Level.NOTE)
        return
    if not holds:
        yield Problem(path, rule.get("message") or f"breaks the rule {rule['rule']}")


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))
