"""Lines that are rows, and lines that are not."""

import gzip
from pathlib import Path

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.read import LINE_LIMIT, read
from finetune_trainer.data.rows import BadRow, RawRow
from finetune_trainer.data.sourcefile import SourceFile


def read_bytes(directory: Path, content: bytes, name: str = "tickets.jsonl") -> list[RawRow | BadRow]:
    (directory / name).write_bytes(content)
    return list(read(SourceFile(name, directory / name)))


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b'{"a": 1}\n{"a": 2}\n', [1, 2]),
        (b'{"a": 1}\n{"a": 2}', [1, 2]),
        (b'{"a": 1}\r\n\r\n{"a": 2}\r\n', [1, 2]),
        (b'\xef\xbb\xbf{"a": 1}\n', [1]),
        ('{"a": "Grüße\u2028"}\n'.encode(), ["Grüße\u2028"]),
        (b'\n  {"a": 1}  \n', [1]),
    ],
    ids=["plain", "no last newline", "CRLF", "BOM", "line separator in text", "blanks"],
)
def test_rows_are_read(tmp_path: Path, content: bytes, values: list[object]) -> None:
    rows = read_bytes(tmp_path, content)
    assert [row.value["a"] for row in rows if isinstance(row, RawRow)] == values
    assert len(rows) == len(values)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"a": 1', "Expecting ',' delimiter at column 8"),
        (b"nonsense", "Expecting value at column 1"),
        (b'{"a": 1} {"a": 2}', "Extra data at column 10"),
        (b"[1]", "is a list, not an object"),
        (b'"text"', "is text, not an object"),
        (b"null", "is null, not an object"),
        (b'{"a": NaN}', "holds NaN, which is not JSON"),
        (b'{"a": -Infinity}', "holds -Infinity, which is not JSON"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b'{"a": {"b": 1, "b": 2}}', "has the key 'b' twice"),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": "' + b"x" * LINE_LIMIT + b'"}', "is longer than 16 MiB"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path: Path, line: bytes, fault: str) -> None:
    first, bad, last = read_bytes(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    assert isinstance(first, RawRow)
    assert isinstance(last, RawRow)
    assert isinstance(bad, BadRow)
    assert str(bad.origin) == "tickets.jsonl line 2"
    assert fault in bad.fault
    assert str(last.origin) == "tickets.jsonl line 3"


WHOLE = gzip.compress(b'{"a": 1}\n' * 1000)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"<!DOCTYPE html><html>", "tickets.jsonl", "is HTML or XML, not JSON lines; it starts with '<!DOCTYPE html>"),
        (b"  <html>", "tickets.jsonl", "is HTML"),
        ('{"a": 1}'.encode("utf-16"), "tickets.jsonl", "is UTF-16; save it as UTF-8"),
        (WHOLE[: len(WHOLE) // 2], "tickets.jsonl.gz", "is not a whole gzip file"),
    ],
    ids=["HTML", "indented HTML", "UTF-16", "torn gzip"],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, name: str, said: str) -> None:
    with pytest.raises(FineTuneError, match=said) as raised:
        read_bytes(tmp_path, content, name)
    assert raised.value.reason is FailureReason.DATASET_INVALID


def test_gzip_is_read(tmp_path: Path) -> None:
    assert len(read_bytes(tmp_path, WHOLE, "tickets.jsonl.gz")) == 1000
