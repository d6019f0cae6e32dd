"""JSON lines, strictly: every line is a row or says what is wrong with it."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn, cast

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.rows import BadRow, Origin, RawRow
from finetune_trainer.data.sources import SourceFile, named_read_errors

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of one line that are read: a larger row is a mistake, and its copies would not fit the pod."""

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_MARKUP = re.compile(rb"\s*<[!?a-zA-Z]")


def read(file: SourceFile) -> Iterator[RawRow | BadRow]:
    """The rows of a file, in order; blank lines are none.

    Raises:
        FineTuneError: DatasetInvalid when the file as a whole is something else, SourceUnavailable when it breaks off.
    """
    with named_read_errors(file.name), _opened(file) as stream:
        for number, line in _lines(file, stream):
            if line is None:
                yield BadRow(Origin(file.name, number), f"is longer than {LINE_LIMIT // 1024**2} MiB")
            elif line.strip():
                yield _parsed(Origin(file.name, number), _first(file, line) if number == 1 else line)


def _opened(file: SourceFile) -> BinaryIO:
    return cast("BinaryIO", gzip.open(file.path)) if file.name.endswith(".gz") else file.path.open("rb")


def _lines(file: SourceFile, stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines, None for one that is too long."""
    number = 0
    try:
        while line := stream.readline(LINE_LIMIT):
            number += 1
            is_whole = line.endswith(b"\n") or len(line) < LINE_LIMIT
            yield number, line if is_whole else None
            while not is_whole and (rest := stream.readline(LINE_LIMIT)):
                is_whole = rest.endswith(b"\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FineTuneError(FailureReason.DATASET_INVALID, f"{file.name}: is not a whole gzip file: {error}") from error


def _first(file: SourceFile, line: bytes) -> bytes:
    """The first line without its byte order mark, once it is clear that the file may be JSON lines at all."""
    if line.startswith(_UTF_16):
        raise FineTuneError(FailureReason.DATASET_INVALID, f"{file.name}: is UTF-16; save it as UTF-8")
    line = line.removeprefix(_BOM)
    if _MARKUP.match(line):
        start = line.strip()[:60].decode(errors="replace")
        raise FineTuneError(
            FailureReason.DATASET_INVALID, f"{file.name}: is HTML or XML, not JSON lines; it starts with {start!r}"
        )
    return line


def _parsed(origin: Origin, line: bytes) -> RawRow | BadRow:
    try:
        value = json.loads(
            line.rstrip().decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        return BadRow(origin, f"is not UTF-8 at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return BadRow(origin, f"{error.msg.removesuffix(' at')} at column {error.colno}")
    except RecursionError:
        return BadRow(origin, "is nested too deeply")
    except ValueError as error:
        return BadRow(origin, str(error))
    if not isinstance(value, dict):
        return BadRow(origin, f"is {kind_of(value)}, not an object")
    return RawRow(origin, value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not JSON")


def kind_of(value: object) -> str:
    """A JSON value's type in words: `a list`."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]
