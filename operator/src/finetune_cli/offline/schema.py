"""A value against a structural schema, as the API server does it: nulls are dropped, defaults filled in."""

import re
from collections.abc import Iterator
from typing import Any

from finetune_cli.offline.problems import Path, Problem, did_you_mean, shown

Schema = dict[str, Any]
Value = Any
"""What YAML holds; None, bool, int, float, str, list or dict."""

_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}

_READABLE = 60
"""A longer pattern tells nobody anything; the field's description does."""


class Checked:
    """A value with its defaults, and what is wrong with it."""

    def __init__(self, schema: Schema, value: Value, path: Path = ()) -> None:
        self.problems: list[Problem] = []
        self._unknown: set[Path] = set()
        self.value = self._check(schema, value, path)
        """With defaults, and numbers of the schema's type: what rules look at."""

    def is_sound(self, path: Path) -> bool:
        """Whether nothing is wrong at the path or below it; an unknown field spoils only what it stands in."""
        return not any(
            problem.path[: len(path)] == path
            and (problem.path not in self._unknown or len(problem.path) == len(path) + 1)
            for problem in self.problems
        )

    def _say(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))

    def _check(self, schema: Schema, value: Value, path: Path) -> Value:
        if schema.get("x-kubernetes-int-or-string"):
            return self._number_or_text(schema, value, path)
        kind = schema["type"]
        if not _is_a(kind, value):
            meant = f"; write {value!r} in quotes" if kind == "string" and not isinstance(value, list | dict) else ""
            self._say(path, f"{shown(value)} is {_word(value)}, but should be {_WORDS[kind]}{meant}")
            return value
        if "enum" in schema and value not in schema["enum"]:
            self._say(path, f"{shown(value)} is not one of {_listed(schema['enum'])}{_near(value, schema['enum'])}")
        match kind:
            case "object":
                return self._object(schema, value, path)
            case "array":
                return self._array(schema, value, path)
            case "string":
                self._text(schema, value, path)
            case "integer" | "number":
                self._bounds(schema, value, path)
                return float(value) if kind == "number" else int(value)
        return value

    def _number_or_text(self, schema: Schema, value: Value, path: Path) -> Value:
        if isinstance(value, str):
            self._text(schema, value, path)
        elif _is_a("integer", value):
            self._bounds(schema, value, path)
            return int(value)
        else:
            self._say(path, f"{shown(value)} is {_word(value)}, but should be a whole number or text")
        return value

    def _object(self, schema: Schema, value: dict[str, Value], path: Path) -> dict[str, Value]:
        if len(value) > schema.get("maxProperties", len(value)):
            self._say(path, f"has {len(value)} entries; at most {schema['maxProperties']} are allowed")
            return value
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return {key: self._check(values, child, (*path, key)) for key, child in value.items() if child is not None}
        properties: dict[str, Schema] = schema.get("properties", {})
        full = {}
        for key, child in value.items():
            if key not in properties:
                self._unknown.add((*path, key))
                self._say((*path, key), "unknown field" + did_you_mean(key, properties))
            elif child is not None:
                full[key] = self._check(properties[key], child, (*path, key))
        for key, child_schema in properties.items():
            if key not in full and "default" in child_schema:
                full[key] = self._check(child_schema, child_schema["default"], (*path, key))
        for key in schema.get("required", ()):
            if key not in full:
                self._say((*path, key), "is required" + _described(properties.get(key, {})))
        return full

    def _array(self, schema: Schema, value: list[Value], path: Path) -> list[Value]:
        if len(value) > schema.get("maxItems", len(value)):
            self._say(path, f"has {len(value)} items; at most {schema['maxItems']} are allowed")
            return value
        if len(value) < schema.get("minItems", 0):
            self._say(path, f"has {len(value)} items; at least {schema['minItems']} must be there")
        for index, message in _twice(schema, value):
            self._say((*path, index), message)
        return [self._check(schema["items"], child, (*path, index)) for index, child in enumerate(value)]

    def _text(self, schema: Schema, value: str, path: Path) -> None:
        size = len(value)
        if size > schema.get("maxLength", size):
            self._say(path, f"has {size:,} characters; at most {schema['maxLength']:,} are allowed")
        elif size < schema.get("minLength", 0):
            self._say(path, "must not be empty")
        elif "pattern" in schema and not _matches(schema["pattern"], value):
            rule = schema["pattern"]
            meant = f"does not match {rule}" if len(rule) <= _READABLE else "is not of its form"
            self._say(path, f"{shown(value)} {meant}{_described(schema)}")

    def _bounds(self, schema: Schema, value: float, path: Path) -> None:
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = bool(schema.get("exclusiveMinimum")), bool(schema.get("exclusiveMaximum"))
        too_low = low is not None and (value <= low if above else value < low)
        too_high = high is not None and (value >= high if below else value > high)
        if too_low or too_high or value != value:
            self._say(path, f"{shown(value)} is not allowed; use {_range(low, high, above, below)}")


def _range(low: float | None, high: float | None, above: bool, below: bool) -> str:
    if low is not None and high is not None and not above and not below:
        return f"{low:,} to {high:,}"
    words = []
    if low is not None:
        words.append(f"{'more than' if above else 'at least'} {low:,}")
    if high is not None:
        words.append(f"{'less than' if below else 'at most'} {high:,}")
    return " and ".join(words) or "a number"


def _is_a(kind: str, value: Value) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        case "number":
            return isinstance(value, int | float)
    return False


def _word(value: Value) -> str:
    if value is None:
        return "nothing"
    kind = next(kind for kind in ("boolean", "integer", "number", "string", "array", "object") if _is_a(kind, value))
    return _WORDS[kind]


def _matches(pattern: str, value: str) -> bool:
    # In RE2, `$` is the end of the text; in Python it is also before a last line break.
    return re.search(re.sub(r"(?<!\\)\$(?=\)|\||$)", r"\\Z", pattern), value, re.ASCII) is not None


def _listed(names: list[Value]) -> str:
    return ", ".join(map(str, names))


def _near(value: Value, names: list[Value]) -> str:
    found = did_you_mean(str(value), map(str, names))
    return found if "did you mean" in found else ""


def _described(schema: Schema) -> str:
    """The field's description up to its first full stop: what it is for."""
    words = str(schema.get("description", ""))
    return f": {re.split(r'[.](?: |$)', words, maxsplit=1)[0]}" if words else ""


def _twice(schema: Schema, value: list[Value]) -> Iterator[tuple[int, str]]:
    """Items of a set, or keys of a list that is a map, that have been there before."""
    keys = schema.get("x-kubernetes-list-map-keys", ())
    match schema.get("x-kubernetes-list-type"):
        case "set":
            names = [repr(item) for item in value]
        case "map":
            names = [repr([item.get(key) for key in keys] if isinstance(item, dict) else item) for item in value]
        case _:
            return
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            what = f"an item with the same {' and '.join(keys)}" if keys else shown(value[index])
            yield index, f"{what} is in the list already"
        seen.add(name)
