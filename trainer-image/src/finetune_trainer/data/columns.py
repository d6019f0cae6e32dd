"""A source's columns under our names: `a.b` is column `b` of the object in column `a`, `a.0` the first of a list."""

from collections.abc import Mapping
from typing import Any

_NOTHING = object()


class Columns:
    """`spec.columns`: our column name to the source's."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """Take the mapping; a column that it does not have is called the same in the source."""
        self.names = dict(names)

    def source_of(self, column: str) -> str:
        """What a source calls one of our columns."""
        return self.names.get(column, column)

    def has(self, value: Mapping[str, Any], column: str) -> bool:
        """Whether a row has one of our columns."""
        return _found(value, self.source_of(column)) is not _NOTHING

    def get(self, value: Mapping[str, Any], column: str) -> Any:  # noqa: ANN401 - JSON
        """One of our columns; None where the row has none."""
        found = _found(value, self.source_of(column))
        return None if found is _NOTHING else found

    def unused(self, value: Mapping[str, Any], columns: tuple[str, ...]) -> list[str]:
        """The source's columns that none of ours is taken from."""
        used = {self.source_of(column) for column in columns}
        return sorted(set(value) - used - {name.partition(".")[0] for name in used if name not in value})


def _found(value: Any, path: str) -> Any:  # noqa: ANN401 - JSON
    """What is at a path; a column whose own name has dots goes first."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    if not dot:
        return value[int(head)] if _is_index(value, head) else _NOTHING
    if isinstance(value, Mapping):
        return _found(value[head], rest) if head in value else _NOTHING
    return _found(value[int(head)], rest) if _is_index(value, head) else _NOTHING


def _is_index(value: object, text: str) -> bool:
    return isinstance(value, list) and text.isascii() and text.isdigit() and int(text) < len(value)
