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

_SHARD_BYTES = 256 * 1024 * 1024
"""Canonical rows in one Parquet file; what compresses them makes it a third or so of that."""


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
        shards = _shards(rows)
        for number, shard in enumerate(shards):
            _write_parquet(directory / shard_name(split, number, len(shards)), rows, shard)
    # No time in the header: the same rows give the same bytes.
    with gzip.GzipFile(directory / DROPPED_FILE, "wb", mtime=0) as file:
        for drop in sorted(drops, key=lambda drop: (drop.origin.file, drop.origin.line)):
            entry = {"reason": drop.reason, "file": drop.origin.file, "line": drop.origin.line, "detail": drop.detail}
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")


def shard_name(split: str, number: int, count: int) -> str:
    """A Parquet file's name: `train.parquet`, or where there are several `train-00000-of-00003.parquet`."""
    return f"{split}.parquet" if count == 1 else f"{split}-{number:05d}-of-{count:05d}.parquet"


def shards_of(directory: Path, split: str) -> list[Path]:
    """The Parquet files of a split, in order; none where there is no such split."""
    single = directory / f"{split}.parquet"
    return [single] if single.is_file() else sorted(directory.glob(f"{split}-*-of-*.parquet"))


def _shards(rows: list[Row]) -> list[list[Row]]:
    """Rows in their order, cut so that no file is too large for a reader."""
    shards: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        if size > _SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(row)
        size += len(row.canonical)
    return shards


def _write_parquet(path: Path, rows: list[Row], shard: list[Row]) -> None:
    """Write one file; all of a split's have the columns that any of its `rows` needs."""
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
        for batch in _batches(shard):
            writer.write_table(pyarrow.Table.from_pylist([row.value() for row in batch], schema=schema))


_PLAIN = ("role", "content")


def _has(rows: list[Row], name: str) -> bool:
    """Whether any row has a field of that name; in a text, its quotes would be escaped."""
    return any(f'"{name}":' in row.canonical for row in rows)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, _ROW_GROUP)):
        yield batch
