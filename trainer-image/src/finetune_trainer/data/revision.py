"""Writing a revision: Parquet per split, the list of what was left out or changed, and the digest over rows."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from finetune_contract.base import Sha256
from finetune_contract.datasets import RowFormat
from finetune_trainer.data.rows import Account, Change, Drop, Row
from finetune_trainer.data.turns import TURN_FIELDS, WEIGHT

DROPPED_FILE = "dropped.jsonl.zst"
"""One line per row that was left out, changed or moved: what, why, file, line, and the fault or the row it repeats."""

_ROW_GROUP = 10_000
"""Rows that are parsed at a time, and that a reader loads at a time."""


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
        _write_parquet(directory / f"{split}.parquet", rows)
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


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    present = _present(rows)
    fields = [(name, pyarrow.int8() if name == WEIGHT else text) for name in TURN_FIELDS if name in present]
    turns = pyarrow.list_(pyarrow.struct(fields))
    types = {list: turns, bool: pyarrow.bool_(), str: text}
    columns = {column: types[type(value)] for column, value in next(iter(rows)).value().items()}
    if "tools" in present:  # not every row need have some
        columns["tools"] = text
    schema = pyarrow.schema(list(columns.items()))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pyarrow.Table.from_pylist([row.value() for row in batch], schema=schema))


_PLAIN = ("role", "content")


def _present(rows: Iterable[Row]) -> set[str]:
    """Which fields any turn or row has beside the usual ones; in a text, a field's quotes would be escaped."""
    found, wanted = set(_PLAIN), {"tools", *TURN_FIELDS} - set(_PLAIN)
    if any(isinstance(value, list) for value in next(iter(rows)).value().values()):
        for row in rows:
            found |= {name for name in wanted - found if f'"{name}":' in row.canonical}
            if wanted <= found:
                break
    return found


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, _ROW_GROUP)):
        yield batch
