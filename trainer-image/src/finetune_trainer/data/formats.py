"""From a source's columns to a format's: detected once, then every row is held to it."""

from typing import Any

from finetune_contract.datasets import RowFormat, SourceFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.columns import Columns
from finetune_trainer.data.dialects import MEDIA, alpaca, share_gpt
from finetune_trainer.data.preferences import SHAPES
from finetune_trainer.data.rows import RawRow, Row, RowFaultError, make_row
from finetune_trainer.data.strictjson import kind_of
from finetune_trainer.data.turns import TOOL_CALLS, conversation, learnt_part, listed, tools_of

COLUMNS = {
    SourceFormat.MESSAGES: ("messages",),
    SourceFormat.SHARE_GPT: ("conversations",),
    SourceFormat.PREFERENCE: ("chosen", "rejected"),
    SourceFormat.UNPAIRED_PREFERENCE: ("prompt", "completion", "label"),
    SourceFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    SourceFormat.ALPACA: ("instruction", "output"),
    SourceFormat.CLASSIFICATION: ("text", "label"),
    SourceFormat.TEXT: ("text",),
    SourceFormat.PROMPTS: ("prompt",),
}
"""Each format's columns; detection takes the first format whose columns are all there, as long as `_is_like` agrees."""

_OPTIONAL = {
    SourceFormat.MESSAGES: ("tools",),
    SourceFormat.SHARE_GPT: ("system", "tools"),
    SourceFormat.ALPACA: ("input", "system", "history"),
    SourceFormat.PREFERENCE: ("prompt",),
    SourceFormat.PROMPTS: ("answer",),
}
"""Columns that a format knows and a row may lack."""

_DIALECTS = {SourceFormat.ALPACA: alpaca, SourceFormat.SHARE_GPT: share_gpt}
"""Formats that become Messages."""

_MARKS = ("true", "false")


class Normaliser:
    """Turns a source's rows into one format's."""

    def __init__(self, first: RawRow, source_format: SourceFormat | None, columns: dict[str, str]) -> None:
        """Settle the format by the first row.

        Args:
            first: The first row that is JSON.
            source_format: `spec.format`, None to detect it.
            columns: `spec.columns`: our column name to the source's.

        Raises:
            FineTuneError: DatasetInvalid naming line, column, and the columns that are there.
        """
        self._columns = Columns(columns)
        self._is_detected = source_format is None
        self._prompts_are_turns: bool | None = None
        self.source_format = source_format or self._detected(first)
        self.format = RowFormat.MESSAGES if self.source_format in _DIALECTS else RowFormat(self.source_format.value)
        """What the rows become."""
        unknown = sorted(set(columns) - set(_columns(self.source_format)))
        if unknown:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"spec.columns.{unknown[0]}: is not a column of {self.source_format}; it has "
                f"{listed(_columns(self.source_format))}",
            )
        missing = self._missing(first)
        if missing:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"{first.origin}: has no column {missing[0]!r}, which {self.source_format} needs; it has "
                f"{listed(first.value)}; name yours in spec.columns",
            )

    def unused_columns(self, row: RawRow) -> list[str]:
        """Columns of a source's row that the format has no place for."""
        return self._columns.unused(row.value, _columns(self.source_format))

    def normalise(self, row: RawRow) -> Row | None:
        """The row in the format's columns; None when it holds nothing to learn from.

        Raises:
            RowFaultError: The row is not of the format.
        """
        missing = self._missing(row)
        if missing:
            raise RowFaultError(f"has no column {missing[0]!r}, unlike the rows before; it has {listed(row.value)}")
        # A file that mixes formats must not pass for the poorer one, or the order of its rows would decide.
        if self._is_detected and (found := self._format_of(row)) is not self.source_format:
            raise RowFaultError(f"is a row of {found}; the rows before are of {self.source_format}")
        values = {column: self._columns.get(row.value, column) for column in _columns(self.source_format)}
        if shape := SHAPES.get(self.format):
            shaped = shape(values)
            return None if shaped is None else self._row(row, self._alike(shaped))
        if self.format is RowFormat.MESSAGES:
            return self._conversation(row, values)
        texts = {column: self._text(column, value) for column, value in values.items()}
        return None if any(not text.strip() for text in texts.values()) else self._row(row, texts)

    def _conversation(self, row: RawRow, values: dict[str, Any]) -> Row | None:
        pictures = [column for column in MEDIA if row.value.get(column)]
        if pictures:
            raise RowFaultError(f"has the column {pictures[0]!r}; only text is learnt from, not pictures or sound")
        if dialect := _DIALECTS.get(self.source_format):
            values = dialect(values)
        column = "conversations" if self.source_format is SourceFormat.SHARE_GPT else "messages"
        messages = learnt_part(conversation(column, values["messages"], last="assistant", is_weighted=True))
        # A call of a tool says nothing, and a tool may have nothing to say.
        spoken = [turn for turn in messages if turn["role"] in ("user", "assistant") and TOOL_CALLS not in turn]
        tools = {} if values.get("tools") is None else {"tools": tools_of(values["tools"])}
        is_empty = not messages or any(not turn["content"].strip() for turn in spoken)
        return None if is_empty else self._row(row, {"messages": messages, **tools})

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
        except RecursionError as error:
            raise RowFaultError("is nested too deeply") from error
        except UnicodeEncodeError as error:
            raise RowFaultError("holds half of a surrogate pair, which is no character") from error

    def _text(self, column: str, value: object) -> str:
        if value is None:
            return ""
        if column == "label" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise RowFaultError(f"column {self._columns.source_of(column)!r} holds {kind_of(value)}, not text")
        return value

    def _detected(self, first: RawRow) -> SourceFormat:
        found = self._format_of(first)
        if found is not None:
            return found
        wanted = "; ".join(f"{listed(columns)} ({row_format})" for row_format, columns in COLUMNS.items())
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"{first.origin}: has the columns {listed(first.value)}; no format has these. "
            f"Name them in spec.columns, as one of: {wanted}",
        )

    def _format_of(self, row: RawRow) -> SourceFormat | None:
        for row_format, columns in COLUMNS.items():
            if all(self._columns.has(row.value, column) for column in columns) and self._is_like(row_format, row):
                return row_format
        return None

    def _is_like(self, row_format: SourceFormat, row: RawRow) -> bool:
        """Whether columns that other formats have, too, mean this one."""
        if row_format is SourceFormat.UNPAIRED_PREFERENCE:
            label = self._columns.get(row.value, "label")
            return isinstance(label, bool) or (isinstance(label, str) and label.lower() in _MARKS)
        if row_format is SourceFormat.PROMPTS:
            # Anything else beside the prompt may be an answer under another name, which must not be passed over.
            return not self._columns.unused(row.value, _columns(row_format))
        return True

    def _missing(self, row: RawRow) -> list[str]:
        return [
            self._columns.source_of(column)
            for column in COLUMNS[self.source_format]
            if not self._columns.has(row.value, column)
        ]


def _columns(row_format: SourceFormat) -> tuple[str, ...]:
    """All columns that a format has a place for."""
    return (*_OPTIONAL.get(row_format, ()), *COLUMNS[row_format])
