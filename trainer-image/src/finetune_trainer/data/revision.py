"""Writing a revision: Parquet per split, the list of what was left out or changed, and the digest over rows."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_contract.base import Sha256
from finetune_contract.datasets import RowFormat
from finetune_trainer.data.rows import Account, Change, Drop, Row
from finetune_trainer.data.turns import TURN_FIELDS, WEIGHT

DROPPED_FILE = "dropped.jsonl.zst"
"""One line per row that was left out, changed or moved: what, why, file, line, and the fault or the row it repeats."""

_ROW_GROUP = 10_000
"""Rows that are parsed at a time, and that a reader loads at a time."""

_SHARD_BYTES = 256 * 1024 * 1024
"""Canonical rows in one Parquet file; what compresses them makes it a third or so of that."""


def digest_of(row_format: RowFormat, splits: Mapping[str, Iterable[str]]) -> Sha256:
    """The revision's name: sha256 over the format and each row's split and digest, in order.

    Neither the order of files and lines nor the Parquet writer's version has a part in it.

    Args:
        row_format: The rows' format.
        splits: Each split's row digests, sorted.
    """
    total = hashlib.sha256(f"{row_format}\n".encode())
    for split in sorted(splits):
        for digest in splits[split]:
            total.update(f"{split} {digest}\n".encode())
    return "sha256:" + total.hexdigest()


def write_revision(directory: Path, parts: Mapping[str, Iterable[Row]], account: Account) -> None:
    """Write a revision's files; each split's rows are gone through more than once."""
    for split, rows in parts.items():
        shape = _shape(rows)
        rest = iter(rows)
        for number, size in enumerate(shape.shards):
            name = shard_name(split, number, len(shape.shards))
            _write_parquet(directory / name, shape, islice(rest, size))
    write_account(directory / DROPPED_FILE, account)


def write_account(path: Path, account: Account) -> None:
    """List what was left out, changed or moved, in the order of the source; never what was in a row."""
    import pyarrow

    entries: list[tuple[str, Drop | Change]] = [("Dropped", drop) for drop in account.drops]
    entries += [("Changed", change) for change in account.changes]
    entries.sort(key=lambda entry: (entry[1].origin.file, entry[1].origin.line, entry[0]))
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        for action, what in entries:
            entry = {
                "action": action, "reason": what.reason, "file": what.origin.file,
                what.origin.unit: what.origin.line, "detail": what.detail,
            }  # fmt: skip
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")


def shard_name(split: str, number: int, count: int) -> str:
    """A Parquet file's name: `train.parquet`, or where there are several `train-00000-of-00003.parquet`."""
    return f"{split}.parquet" if count == 1 else f"{split}-{number:05d}-of-{count:05d}.parquet"


def shards_of(directory: Path, split: str) -> list[Path]:
    """The Parquet files of a split, in order; none where there is no such split."""
    single = directory / f"{split}.parquet"
    return [single] if single.is_file() else sorted(directory.glob(f"{split}-*-of-*.parquet"))


@dataclass
class _Shape:
    """What has to be known of a split's rows before the first is written."""

    first: dict[str, Any]
    """The first row's columns."""
    fields: set[str]
    """Fields of turns that any of them has, and `tools` where any has some."""
    shards: list[int]
    """Rows of each file, so that none is too large for a reader."""


_PLAIN = ("role", "content")


def _shape(rows: Iterable[Row]) -> _Shape:
    first = next(iter(rows)).value()
    shape = _Shape(first, set(_PLAIN), [0])
    has_turns = any(isinstance(value, list) for value in first.values())
    wanted = {"tools", *TURN_FIELDS} - set(_PLAIN) if has_turns else set()
    size = 0
    for row in rows:
        # In a text, a field's quotes would be escaped.
        shape.fields |= {name for name in wanted - shape.fields if f'"{name}":' in row.canonical}
        if size > _SHARD_BYTES:
            shape.shards.append(0)
            size = 0
        shape.shards[-1] += 1
        size += len(row.canonical)
    return shape


def _write_parquet(path: Path, shape: _Shape, rows: Iterable[Row]) -> None:
    """Write one file; all of a split's have the columns that any of its rows needs."""
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    fields = [(name, pyarrow.int8() if name == WEIGHT else text) for name in TURN_FIELDS if name in shape.fields]
    turns = pyarrow.list_(pyarrow.struct(fields))
    types = {list: turns, bool: pyarrow.bool_(), str: text}
    columns = {column: types[type(value)] for column, value in shape.first.items()}
    if "tools" in shape.fields:  # not every row need have some
        columns["tools"] = text
    schema = pyarrow.schema(list(columns.items()))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pyarrow.Table.from_pylist([row.value() for row in batch], schema=schema))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, _ROW_GROUP)):
        yield batch
