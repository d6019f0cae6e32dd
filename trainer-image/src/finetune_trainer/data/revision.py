"""Writing a revision: Parquet per split, the list of dropped rows, and the digest over rows."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from finetune_contract.base import Sha256
from finetune_contract.datasets import RowFormat
from finetune_trainer.data.rows import Drop, Row
from finetune_trainer.data.turns import TURN_FIELDS, WEIGHT

DROPPED_FILE = "dropped.jsonl.gz"
"""One line per row that was left out: reason, file, line, and the fault or the row it duplicates."""

_ROW_GROUP = 10_000
"""Rows that are parsed at a time, and that a reader loads at a time."""


def digest_of(row_format: RowFormat, splits: dict[str, list[Row]]) -> Sha256:
    """The revision's name: sha256 over the format and each row's split and digest, in order.

    Neither the order of files and lines nor the Parquet writer's version has a part in it.
    """
    total = hashlib.sha256(f"{row_format}\n".encode())
    for line in sorted(f"{split} {row.digest}\n" for split, rows in splits.items() for row in rows):
        total.update(line.encode())
    return "sha256:" + total.hexdigest()


def write_revision(directory: Path, splits: dict[str, list[Row]], drops: list[Drop]) -> None:
    """Write a revision's files."""
    for split, rows in splits.items():
        _write_parquet(directory / f"{split}.parquet", rows)
    # No time in the header: the same rows give the same bytes.
    with gzip.GzipFile(directory / DROPPED_FILE, "wb", mtime=0) as file:
        for drop in sorted(drops, key=lambda drop: (drop.origin.file, drop.origin.line)):
            entry = {"reason": drop.reason, "file": drop.origin.file, "line": drop.origin.line, "detail": drop.detail}
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    fields = [(name, pyarrow.int8() if name == WEIGHT else text) for name in TURN_FIELDS]
    turns = pyarrow.list_(pyarrow.struct([field for field in fields if field[0] in _PLAIN or _has(rows, field[0])]))
    types = {list: turns, bool: pyarrow.bool_(), str: text}
    columns = {column: types[type(value)] for column, value in rows[0].value().items()}
    if _has(rows, "tools"):  # not every row need have some
        columns["tools"] = text
    schema = pyarrow.schema(list(columns.items()))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pyarrow.Table.from_pylist([row.value() for row in batch], schema=schema))


_PLAIN = ("role", "content")


def _has(rows: list[Row], name: str) -> bool:
    """Whether any row has a field of that name; in a text, its quotes would be escaped."""
    return any(f'"{name}":' in row.canonical for row in rows)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, _ROW_GROUP)):
        yield batch
