"""From a source's columns to a format's: detected once, then every row is held to it."""

from collections.abc import Iterable
from typing import Any

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.plans import RowFormat
from finetune_trainer.data.read import kind_of
from finetune_trainer.data.rows import RawRow, Row, make_row

COLUMNS = {
    RowFormat.MESSAGES: ("messages",),
    RowFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    RowFormat.CLASSIFICATION: ("text", "label"),
    RowFormat.TEXT: ("text",),
}
"""Each format's columns; detection takes the first format whose columns are all there."""

_ROLES = ("system", "user", "assistant")


class RowFaultError(Exception):
    """What is wrong with one row; the caller knows its line and whether it may be tolerated."""


class Normaliser:
    """Turns a source's rows into one format's."""

    def __init__(self, first: RawRow, row_format: RowFormat | None, columns: dict[str, str]) -> None:
        """Settle the format by the first row.

        Args:
            first: The first row that is JSON.
            row_format: `spec.format`, None to detect it.
            columns: `spec.columns`: our column name to the source's.

        Raises:
            FineTuneError: DatasetInvalid naming line, column, and the columns that are there.
        """
        self._source_columns = columns
        self._is_detected = row_format is None
        self.format = row_format or self._detected(first)
        unknown = sorted(set(columns) - set(COLUMNS[self.format]))
        if unknown:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"spec.columns.{unknown[0]}: is not a column of {self.format}; it has {_listed(COLUMNS[self.format])}",
            )
        missing = self._missing(first)
        if missing:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"{first.origin}: has no column {missing[0]!r}, which {self.format} needs; it has "
                f"{_listed(first.value)}; name yours in spec.columns",
            )

    def unused_columns(self, row: RawRow) -> list[str]:
        """Columns of a source's row that the format has no place for."""
        return sorted(set(row.value) - {self._source_of(column) for column in COLUMNS[self.format]})

    def normalise(self, row: RawRow) -> Row | None:
        """The row in the format's columns; None when it holds nothing to learn from.

        Raises:
            RowFaultError: The row is not of the format.
        """
        missing = self._missing(row)
        if missing:
            raise RowFaultError(f"has no column {missing[0]!r}, unlike the rows before; it has {_listed(row.value)}")
        # A file that mixes formats must not pass for the poorer one, or the order of its rows would decide.
        if self._is_detected and self._format_of(row) is not self.format:
            raise RowFaultError(f"is a row of {self._format_of(row)}; the rows before are of {self.format}")
        values = {column: row.value[self._source_of(column)] for column in COLUMNS[self.format]}
        if self.format is RowFormat.MESSAGES:
            messages = _messages(values["messages"])
            is_empty = any(not m["content"].strip() for m in messages if m["role"] != "system")
            return None if is_empty else self._row(row, {"messages": messages})
        texts = {column: self._text(column, value) for column, value in values.items()}
        return None if any(not text.strip() for text in texts.values()) else self._row(row, texts)

    def _row(self, row: RawRow, value: dict[str, Any]) -> Row:
        try:
            return make_row(row.origin, value)
        except UnicodeEncodeError as error:
            raise RowFaultError("holds half of a surrogate pair, which is no character") from error

    def _text(self, column: str, value: object) -> str:
        if value is None:
            return ""
        if column == "label" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise RowFaultError(f"column {self._source_of(column)!r} holds {kind_of(value)}, not text")
        return value

    def _detected(self, first: RawRow) -> RowFormat:
        found = self._format_of(first)
        if found is not None:
            return found
        wanted = "; ".join(f"{_listed(columns)} ({row_format})" for row_format, columns in COLUMNS.items())
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"{first.origin}: has the columns {_listed(first.value)}; no format has these. "
            f"Name them in spec.columns, as one of: {wanted}",
        )

    def _format_of(self, row: RawRow) -> RowFormat | None:
        for row_format, columns in COLUMNS.items():
            if all(self._source_of(column) in row.value for column in columns):
                return row_format
        return None

    def _missing(self, row: RawRow) -> list[str]:
        wanted = (self._source_of(column) for column in COLUMNS[self.format])
        return [column for column in wanted if column not in row.value]

    def _source_of(self, column: str) -> str:
        return self._source_columns.get(column, column)


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise RowFaultError(f"messages is {kind_of(value) if value != [] else 'empty'}, not a list of turns")
    messages = [_message(number, message) for number, message in enumerate(value)]
    roles = [message["role"] for message in messages]
    first = 1 if roles[0] == "system" else 0
    for number, role in enumerate(roles[first:], start=first):
        wanted = "assistant" if (number - first) % 2 else "user"
        if role != wanted:
            raise RowFaultError(f"messages[{number}].role is {role!r} where {wanted!r} has to be")
    if roles[-1] != "assistant":
        raise RowFaultError(f"messages end with {roles[-1]!r}; the last one has to be the assistant's answer")
    return messages


def _message(number: int, message: object) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RowFaultError(f"messages[{number}] is {kind_of(message)}, not an object with role and content")
    for key, value in message.items():
        if key not in ("role", "content") and value is not None:
            raise RowFaultError(f"messages[{number}] has {key!r}; only role and content are supported")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise RowFaultError(f"messages[{number}].role is {role!r}; it may be {_listed(_ROLES)}")
    if not isinstance(content, str):
        raise RowFaultError(f"messages[{number}].content is {kind_of(content)}; only text is supported")
    return {"role": role, "content": content}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
