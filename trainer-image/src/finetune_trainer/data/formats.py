"""From a source's columns to a format's: detected once, then every row is held to it."""

from typing import Any

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.preferences import SHAPES
from finetune_trainer.data.rows import RawRow, Row, make_row
from finetune_trainer.data.strictjson import kind_of
from finetune_trainer.data.turns import TOOL_CALLS, RowFaultError, conversation, listed, tools_of

COLUMNS = {
    RowFormat.MESSAGES: ("messages",),
    RowFormat.PREFERENCE: ("chosen", "rejected"),
    RowFormat.UNPAIRED_PREFERENCE: ("prompt", "completion", "label"),
    RowFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    RowFormat.CLASSIFICATION: ("text", "label"),
    RowFormat.TEXT: ("text",),
    RowFormat.PROMPTS: ("prompt",),
}
"""Each format's columns; detection takes the first format whose columns are all there, as long as `_is_like` agrees."""

_OPTIONAL = {RowFormat.MESSAGES: ("tools",), RowFormat.PREFERENCE: ("prompt",), RowFormat.PROMPTS: ("answer",)}
"""Columns that a format knows and a row may lack."""


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
        self._prompts_are_turns: bool | None = None
        self.format = row_format or self._detected(first)
        unknown = sorted(set(columns) - set(_columns(self.format)))
        if unknown:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"spec.columns.{unknown[0]}: is not a column of {self.format}; it has {listed(_columns(self.format))}",
            )
        missing = self._missing(first)
        if missing:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"{first.origin}: has no column {missing[0]!r}, which {self.format} needs; it has "
                f"{listed(first.value)}; name yours in spec.columns",
            )

    def unused_columns(self, row: RawRow) -> list[str]:
        """Columns of a source's row that the format has no place for."""
        return self.unused(self.format, row)

    def unused(self, row_format: RowFormat, row: RawRow) -> list[str]:
        """The same for a format that may be the right one."""
        return sorted(set(row.value) - {self._source_of(column) for column in _columns(row_format)})

    def normalise(self, row: RawRow) -> Row | None:
        """The row in the format's columns; None when it holds nothing to learn from.

        Raises:
            RowFaultError: The row is not of the format.
        """
        missing = self._missing(row)
        if missing:
            raise RowFaultError(f"has no column {missing[0]!r}, unlike the rows before; it has {listed(row.value)}")
        # A file that mixes formats must not pass for the poorer one, or the order of its rows would decide.
        if self._is_detected and self._format_of(row) is not self.format:
            raise RowFaultError(f"is a row of {self._format_of(row)}; the rows before are of {self.format}")
        values = {column: row.value.get(self._source_of(column)) for column in _columns(self.format)}
        if shape := SHAPES.get(self.format):
            shaped = shape(values)
            return None if shaped is None else self._row(row, self._alike(shaped))
        if self.format is RowFormat.MESSAGES:
            messages = conversation("messages", values["messages"], last="assistant")
            # A call of a tool says nothing, and a tool may have nothing to say.
            spoken = [turn for turn in messages if turn["role"] in ("user", "assistant") and TOOL_CALLS not in turn]
            tools = {} if values["tools"] is None else {"tools": tools_of(values["tools"])}
            is_empty = any(not turn["content"].strip() for turn in spoken)
            return None if is_empty else self._row(row, {"messages": messages, **tools})
        texts = {column: self._text(column, value) for column, value in values.items()}
        return None if any(not text.strip() for text in texts.values()) else self._row(row, texts)

    def _alike(self, value: dict[str, Any]) -> dict[str, Any]:
        """A row whose prompt is what the first row's was: a column is text or turns, not now this, now that."""
        is_turns = isinstance(value["prompt"], list)
        if self._prompts_are_turns is None:
            self._prompts_are_turns = is_turns
        if is_turns != self._prompts_are_turns:
            kinds = ("turns", "text") if is_turns else ("text", "turns")
            raise RowFaultError(f"its prompt is {kinds[0]}; those of the rows before are {kinds[1]}")
        return value

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
        wanted = "; ".join(f"{listed(columns)} ({row_format})" for row_format, columns in COLUMNS.items())
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"{first.origin}: has the columns {listed(first.value)}; no format has these. "
            f"Name them in spec.columns, as one of: {wanted}",
        )

    def _format_of(self, row: RawRow) -> RowFormat | None:
        for row_format, columns in COLUMNS.items():
            has_all = all(self._source_of(column) in row.value for column in columns)
            if has_all and self._is_like(row_format, row):
                return row_format
        return None

    def _is_like(self, row_format: RowFormat, row: RawRow) -> bool:
        """Whether columns that other formats have, too, mean this one."""
        if row_format is RowFormat.UNPAIRED_PREFERENCE:
            return isinstance(row.value[self._source_of("label")], bool)
        if row_format is RowFormat.PROMPTS:
            # Anything else beside the prompt may be an answer under another name, which must not be passed over.
            return not self.unused(row_format, row)
        return True

    def _missing(self, row: RawRow) -> list[str]:
        wanted = (self._source_of(column) for column in COLUMNS[self.format])
        return [column for column in wanted if column not in row.value]

    def _source_of(self, column: str) -> str:
        return self._source_columns.get(column, column)


def _columns(row_format: RowFormat) -> tuple[str, ...]:
    """All columns that a format has a place for."""
    return (*_OPTIONAL.get(row_format, ()), *COLUMNS[row_format])
