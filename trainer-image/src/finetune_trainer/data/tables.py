"""Tables: CSV as RFC 4180 has it, and Parquet. A row is an object of columns, as in JSON."""

import csv
import io
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.rows import BadRow, Origin, RawRow

_DELIMITERS = ",;\t|"
_SAMPLE_RECORDS = 20
_PARQUET_BATCH = 64
"""Rows in memory at a time: few, since a table of documents has long ones."""


def read_csv(
    name: str, lines: Iterable[tuple[int, bytes | None]], delimiter: str | None, limit: int, sample: bytes
) -> Iterator[RawRow | BadRow]:
    """The records of a CSV file whose first one names the columns; empty cells are null.

    Args:
        name: The file's, for messages.
        lines: Numbered lines with their ends, None for one that is too long.
        delimiter: None: the one that cuts the beginning into the most columns of one number.
        limit: Most characters of a cell.
        sample: The beginning of the file.

    Raises:
        FineTuneError: DatasetInvalid when its header does not name columns.
    """
    csv.field_size_limit(limit)
    text = _Lines(lines)
    reader = csv.reader(text, delimiter=delimiter or _delimiter_of(sample), strict=True)
    columns: list[str] | None = None
    while True:
        text.begin_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(Origin(name, text.first), f"is no CSV record: {error}")
            continue
        if text.fault:
            yield BadRow(Origin(name, text.first), text.fault)
        elif cells and columns is None:
            columns = _header(name, text.first, cells)
        elif cells:
            yield _record(Origin(name, text.first), columns or [], cells)


class _Lines:
    """Lines for the reader, which may take several to make a record."""

    def __init__(self, lines: Iterable[tuple[int, bytes | None]]) -> None:
        self._lines = iter(lines)
        self._is_new = True
        self.first = 0
        """The line on which the record begins."""
        self.fault: str | None = None
        """What is wrong with one of its lines."""

    def begin_record(self) -> None:
        self._is_new = True
        self.fault = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        if self._is_new:
            self.first, self._is_new = number, False
        if line is None:
            self.fault = "has a line that is too long to read"
            return "\n"
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.fault = f"is not UTF-8 at byte {error.start + 1}; save the file as UTF-8"
            return line.decode(errors="replace")


def _header(name: str, line: int, cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    faults = [f"column {number} has no name" for number, column in enumerate(columns, start=1) if not column]
    faults += [f"column {column!r} is there twice" for column in sorted(set(columns)) if columns.count(column) > 1]
    if faults:
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"{name} line {line}: the first record has to name the columns, each once; {faults[0]}",
        )
    return columns


def _record(origin: Origin, columns: list[str], cells: list[str]) -> RawRow | BadRow:
    if len(cells) != len(columns):
        return BadRow(origin, f"has {len(cells)} cell{'s' * (len(cells) != 1)} where the header has {len(columns)}")
    return RawRow(origin, {column: cell or None for column, cell in zip(columns, cells, strict=True)})


def _delimiter_of(sample: bytes) -> str:
    """The delimiter by which the first records are of one width, the widest."""
    # The last line of the sample may be half a line.
    text = sample.decode(errors="replace")
    lines = text[: text.rfind("\n") + 1] or text
    return max(_DELIMITERS, key=lambda delimiter: _width(lines, delimiter))


def _width(text: str, delimiter: str) -> int:
    try:
        records = [record for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if record]
    except csv.Error:
        return 0
    widths = {len(record) for record in islice(records, _SAMPLE_RECORDS)}
    # Bad records are told later; a delimiter that fits the header alone is better than none.
    return max(widths) * 2 if len(widths) == 1 else len(records[0]) if records else 0


def read_parquet(name: str, source: Path | io.BufferedReader, limit: int) -> Iterator[RawRow | BadRow]:
    """The rows of a Parquet file, a few at a time; `source` is a stream where the file is packed.

    Raises:
        FineTuneError: DatasetInvalid when the file is damaged.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield from _parquet_rows(name, file, limit)
        return
    # Parquet is read from its end.
    with tempfile.TemporaryFile() as unpacked:
        shutil.copyfileobj(source, unpacked, 1024 * 1024)
        unpacked.seek(0)
        yield from _parquet_rows(name, unpacked, limit)


def _parquet_rows(name: str, stream: BinaryIO, limit: int) -> Iterator[RawRow | BadRow]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        table = parquet.ParquetFile(stream, pre_buffer=False)
        for batch in table.iter_batches(_PARQUET_BATCH, use_threads=False):
            if batch.nbytes > _PARQUET_BATCH * limit:
                _refuse_parquet(name, f"has rows of more than {limit // 1024**2} MiB near row {number + 1}")
            for value in batch.to_pylist():
                number += 1
                yield _plain_row(Origin(name, number, "row"), value)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        _refuse_parquet(name, f"is not a whole Parquet file: {error}")


def _refuse_parquet(name: str, fault: str) -> NoReturn:
    raise FineTuneError(FailureReason.DATASET_INVALID, f"{name}: {fault}")


def _plain_row(origin: Origin, value: dict[str, Any]) -> RawRow | BadRow:
    if any(isinstance(cell, float) and not math.isfinite(cell) for cell in value.values()):
        column = next(column for column, cell in value.items() if isinstance(cell, float) and not math.isfinite(cell))
        return BadRow(origin, f"column {column!r} holds {value[column]}, which is not JSON")
    return RawRow(origin, value)
