"""Every type of file, packed and plain, gives the same rows; what is no good is named with its place."""

import csv
import gzip
import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import FileSettings, FileType, TextRows
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.read import LINE_LIMIT, read
from finetune_trainer.data.rows import BadRow, RawRow
from finetune_trainer.data.sourcefile import SourceFile
from tests.unit.data.conftest import jsonl

ROWS = [{"prompt": f"Größe {n}, please", "completion": f'He said "{n}"\nand left'} for n in range(200)]


AS_FOUND = FileSettings()


def csv_of(rows: list[dict[str, Any]], delimiter: str = ",", end: str = "\r\n") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=50)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(content).to_pybytes())


def read_bytes(directory: Path, content: bytes, name: str, settings: FileSettings = AS_FOUND) -> list[RawRow | BadRow]:
    (directory / name).write_bytes(content)
    return list(read(SourceFile(name, directory / name), settings))


def values(rows: list[RawRow | BadRow]) -> list[dict[str, Any]]:
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert not bad
    return [row.value for row in rows if isinstance(row, RawRow)]


FILES = {
    "JSON lines": ("rows.jsonl", jsonl(ROWS).encode()),
    "JSON lines without a suffix": ("rows", jsonl(ROWS).encode()),
    "JSON list": ("rows.json", json.dumps(ROWS).encode()),
    "JSON list over many lines": ("rows.json", json.dumps(ROWS, indent=2).encode()),
    "JSON list in a .jsonl file": ("rows.jsonl", json.dumps(ROWS).encode()),
    "objects in a .csv file": ("rows.csv", jsonl(ROWS).encode()),
    "CSV": ("rows.csv", csv_of(ROWS)),
    "CSV with semicolons": ("rows.csv", csv_of(ROWS, ";", "\n")),
    "TSV": ("rows.tsv", csv_of(ROWS, "\t")),
    "Parquet": ("rows.parquet", parquet_of(ROWS)),
    "Parquet under another name": ("rows.jsonl", parquet_of(ROWS)),
}
PACKINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("", lambda content: content),
    "gzip": (".gz", gzip.compress),
    "zstd": (".zst", zstd),
    "two gzip members, no suffix": (
        "", lambda content: gzip.compress(content[:70]) + gzip.compress(content[70:])
    ),
    "two zstd frames": (".zstd", lambda content: zstd(content[:70]) + zstd(content[70:])),
}  # fmt: skip


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", FILES)
def test_every_file_gives_the_same_rows(tmp_path: Path, kind: str, packing: str) -> None:
    name, content = FILES[kind]
    suffix, pack = PACKINGS[packing]
    assert values(read_bytes(tmp_path, pack(content), name + suffix)) == ROWS


@pytest.mark.parametrize("kind", [kind for kind in FILES if "Parquet" not in kind])
def test_a_byte_order_mark_and_crlf_make_no_difference(tmp_path: Path, kind: str) -> None:
    name, content = FILES[kind]
    if "CSV" not in kind and "TSV" not in kind:
        content = content.replace(b"\n", b"\r\n")
    assert values(read_bytes(tmp_path, b"\xef\xbb\xbf" + content, name)) == ROWS


def test_text_is_a_row_per_line_or_per_document(tmp_path: Path) -> None:
    content = "\ufeffone\r\n\r\n two\r\n".encode()
    assert values(read_bytes(tmp_path, content, "a.txt")) == [{"text": "one"}, {"text": " two"}]
    whole = FileSettings(text_rows=TextRows.DOCUMENT)
    assert values(read_bytes(tmp_path, content, "a.txt.gz", whole)) == [{"text": "one\n\n two\n"}]


def test_a_type_and_a_delimiter_may_be_named(tmp_path: Path) -> None:
    settings = FileSettings(type=FileType.CSV, delimiter=":")
    assert values(read_bytes(tmp_path, b"a:b\n1:2,3\n", "rows.dat", settings)) == [{"a": "1", "b": "2,3"}]


BAD_ROWS = {
    "CSV: too few cells": (b"a,b\n1,2\n3\n4,5\n", "x.csv", 3, "has 1 cell where the header has 2"),
    "CSV: after a record of three lines": (b'a,b\n"1\n\n2",2\n3\n4,5\n', "x.csv", 5, "has 1 cell"),
    "CSV: a quote in the wrong place": (b'a,b\n1,2\n"3"x,4\n4,5\n', "x.csv", 3, "is no CSV record"),
    "CSV: Latin-1": (b"a,b\n1,2\n3,\xe4\n4,5\n", "x.csv", 3, "is not UTF-8 at byte 3"),
    "CSV: a line without end": (
        b"a,b\n1,2\n3," + b"x" * (LINE_LIMIT + 1) + b"\n4,5\n", "x.csv", 3, "has a line that is too long",
    ),
    "text: Latin-1": (b"one\ntwo\n\xe4\nthree\n", "x.txt", 3, "is not UTF-8 at byte 1"),
    "list: not an object": (b'[{"a": 1},\n{"a": 2},\n3,\n{"a": 4}]', "x.json", 3, "is a number, not an object"),
    "list: a key twice": (b'[{"a": 1},\n{"a": 2},\n{"a": 3, "a": 3},\n{"a": 4}]', "x.json", 3, "the key 'a' twice"),
    "list: NaN": (b'[{"a": 1},\n{"a": 2},\n{"a": NaN},\n{"a": 4}]', "x.json", 3, "holds NaN"),
    "lines: too large a number": (b'{"a": 1}\n{"a": 2}\n{"a": 1e999}\n{"a": 3}', "x.jsonl", 3, "too large"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_and_the_next_is_read(tmp_path: Path, case: str) -> None:
    content, name, line, fault = BAD_ROWS[case]
    rows = read_bytes(tmp_path, content, name)
    (bad,) = [row for row in rows if isinstance(row, BadRow)]
    assert str(bad.origin) == f"{name} line {line}"
    assert fault in bad.fault
    assert isinstance(rows[-1], RawRow)


def test_a_bad_row_of_parquet_has_a_number(tmp_path: Path) -> None:
    first, bad = read_bytes(tmp_path, parquet_of([{"a": 1.0}, {"a": float("nan")}]), "x.parquet")
    assert isinstance(first, RawRow)
    assert isinstance(bad, BadRow)
    assert (str(bad.origin), bad.fault) == ("x.parquet row 2", "column 'a' holds nan, which is not JSON")


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("rows.jsonl", jsonl(ROWS))
    return content.getvalue()


INVALID, BAD = FailureReason.DATASET_INVALID, FailureReason.BAD_ROW
UNREADABLE = {
    "a bomb": (
        gzip.compress(b"\n" * 200_000_000, 9),
        "x.jsonl.gz",
        INVALID,
        "x.jsonl.gz: unpacks to more than 200 times",
    ),
    "a bomb of zstd": (
        zstd(b"\n" * 100_000_000),
        "x.jsonl.zst",
        INVALID,
        "x.jsonl.zst: unpacks to more than 200 times",
    ),
    "a ZIP archive": (archive(), "x.zip", INVALID, "x.zip: is a ZIP archive; unpack it"),
    "packed twice": (gzip.compress(gzip.compress(b"{}")), "x.jsonl.gz", INVALID, "is packed twice"),
    "torn zstd": (zstd(jsonl(ROWS).encode())[:-20], "x.jsonl.zst", INVALID, "is not a whole zstd file"),
    "torn Parquet": (parquet_of(ROWS)[:-9], "x.parquet", INVALID, "is not a whole Parquet file"),
    "no Parquet": (jsonl(ROWS).encode(), "x.parquet", INVALID, "is no Parquet file"),
    "nobody knows": (b"hello", "x.dat", INVALID, "name it in spec.files.type"),
    "HTML as CSV": (b"<!doctype html>", "x.csv", INVALID, "is HTML or XML, not CSV"),
    "HTML as text": (b"<!DOCTYPE html>", "x.txt", INVALID, "is HTML or XML, not Text"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "x.jsonl", INVALID, "is binary or UTF-16"),
    "a column twice": (b"a,b,a\n1,2,3", "x.csv", INVALID, "x.csv line 1: the first record has to name the columns"),
    "a nameless column": (b"a,,c\n1,2,3", "x.csv", INVALID, "column 2 has no name"),
    "a broken list": (b'[{"a": 1},\n {"a": 2,}\n]', "x.json", BAD, "x.json line 2: "),
    "a list without end": (b'[{"a": 1},\n {"a": 2}', "x.json", BAD, "x.json line 2: the file ends where"),
    "a list with more behind it": (b'[{"a": 1}]\n[]', "x.json", BAD, "x.json line 2: has more text after the end"),
    "a nested list": (b'[{"a": ' + b"[" * 100_000, "x.json", BAD, "x.json line 1: is nested too deeply"),
    "an endless row in a list": (
        b'[\n{"a": "' + b"x" * (2 * LINE_LIMIT),
        "x.json",
        BAD,
        "x.json line 2: is longer than",
    ),
    "Latin-1 in a list": (b'[{"a": 1},\n{"a": "\xe4"}]', "x.json", BAD, "x.json line 2: is not UTF-8"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_named(tmp_path: Path, case: str) -> None:
    content, name, reason, said = UNREADABLE[case]
    with pytest.raises(FineTuneError) as raised:
        read_bytes(tmp_path, content, name)
    assert raised.value.reason is reason
    assert said in str(raised.value)


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(jsonl(ROWS))
    rows = read(SourceFile("x.jsonl", path))
    next(rows)
    os.utime(path, (1, 1))
    with pytest.raises(FineTuneError, match=r"x\.jsonl: was written to") as raised:
        list(rows)
    assert raised.value.reason is FailureReason.SOURCE_CHANGED


@pytest.mark.parametrize("kind", ["JSON list", "CSV", "JSON lines"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    name = FILES[kind][0]
    rows = [{"prompt": f"{n}", "completion": "x" * 2000} for n in range(5_000)]
    content = {"JSON list": json.dumps(rows).encode(), "CSV": csv_of(rows), "JSON lines": jsonl(rows).encode()}[kind]
    (tmp_path / name).write_bytes(content)
    del rows, content
    tracemalloc.start()
    count = sum(1 for _ in read(SourceFile(name, tmp_path / name)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 7 * 1024**2


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(
    rows=st.lists(st.dictionaries(KEYS, JSON, max_size=3), min_size=1, max_size=8), indent=st.sampled_from([None, 1])
)
def test_any_list_is_what_json_says(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None
) -> None:
    directory = tmp_path_factory.mktemp("list")
    content = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    assert values(read_bytes(directory, content, "rows.json")) == json.loads(content)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]))
def test_any_table_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], end: str
) -> None:
    directory = tmp_path_factory.mktemp("csv")
    table = [dict(zip(("a", "b", "c"), row, strict=True)) for row in rows]
    expected = [{column: cell or None for column, cell in row.items()} for row in table]
    settings = FileSettings(delimiter=",")
    assert values(read_bytes(directory, csv_of(table, ",", end), "rows.csv", settings)) == expected
