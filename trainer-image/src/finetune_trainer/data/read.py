"""Files as rows, strictly: every line is a row or says what is wrong with it, and none is all in memory.

What a file is, its content says (Parquet, a list, objects); its suffix only where the content could be several things
(a CSV file, a text), or the plan.
"""

import io
import json
import re
from collections.abc import Iterator

from finetune_contract.datasets import FileSettings, FileType, TextRows
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.jsonlist import read_list
from finetune_trainer.data.rows import BadRow, Origin, RawRow
from finetune_trainer.data.sourcefile import SourceFile, named_read_errors
from finetune_trainer.data.strictjson import StrictDecoder, parsed
from finetune_trainer.data.tables import read_csv, read_parquet
from finetune_trainer.data.unpack import bare_suffix, is_packed, opened

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of one line that are read: a larger row is a mistake, and its copies would not fit the pod."""

_AS_FOUND = FileSettings()
_SAMPLE = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_MARKUP = re.compile(rb"\s*<[!?a-zA-Z]")
_HTML = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_LIST_OF_OBJECTS = re.compile(rb"\s*\[\s*\{")
_BY_SUFFIX = {
    ".jsonl": FileType.JSON_LINES,
    ".ndjson": FileType.JSON_LINES,
    ".json": FileType.JSON_LINES,
    ".csv": FileType.CSV,
    ".tsv": FileType.CSV,
    ".txt": FileType.TEXT,
    ".text": FileType.TEXT,
    ".md": FileType.TEXT,
}


def read(file: SourceFile, settings: FileSettings = _AS_FOUND) -> Iterator[RawRow | BadRow]:
    """The rows of a file, in order; blank lines are none.

    Raises:
        FineTuneError: DatasetInvalid when the file as a whole is something else, SourceUnavailable when it breaks off,
            SourceChanged when somebody writes to it meanwhile.
    """
    with named_read_errors(file.name):
        before = file.path.stat()
        with opened(file) as stream:
            head = stream.peek(_SAMPLE)[:_SAMPLE]
            file_type = settings.type or detect(file.name, head)
            yield from _rows(file, stream, file_type, settings, head)
        after = file.path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise FineTuneError(FailureReason.SOURCE_CHANGED, f"{file.name}: was written to while it was read")


def _rows(
    file: SourceFile, stream: io.BufferedReader, file_type: FileType, settings: FileSettings, head: bytes
) -> Iterator[RawRow | BadRow]:
    if file_type is FileType.PARQUET:
        return read_parquet(file.name, stream if is_packed(file.path) else file.path, LINE_LIMIT)
    _refuse_other_encodings(file.name, head, file_type)
    if file_type is FileType.JSON:
        return read_list(file.name, stream, LINE_LIMIT)
    if file_type is FileType.CSV:
        return read_csv(file.name, _lines(stream), settings.delimiter, LINE_LIMIT, head.removeprefix(_BOM))
    if file_type is FileType.TEXT:
        return _document(file, stream) if settings.text_rows is TextRows.DOCUMENT else _text_lines(file, stream)
    return _json_lines(file, stream)


def detect(name: str, head: bytes) -> FileType:
    """What a file is, by its beginning and its suffix.

    Raises:
        FineTuneError: DatasetInvalid when neither says it.
    """
    text = head.removeprefix(_BOM)
    suffix = bare_suffix(name)
    by_suffix = _BY_SUFFIX.get(suffix)
    if head.startswith(b"PAR1"):
        return FileType.PARQUET
    if suffix in (".parquet", ".pq"):
        raise FineTuneError(FailureReason.DATASET_INVALID, f"{name}: is no Parquet file, whatever its name says")
    if _LIST_OF_OBJECTS.match(text) or (suffix == ".json" and text.lstrip().startswith(b"[")):
        return FileType.JSON
    if by_suffix in (FileType.CSV, FileType.TEXT):
        return FileType.JSON_LINES if _begins_with_an_object(text) else by_suffix
    is_json = not text.strip() or text.lstrip().startswith((b"{", b"["))
    if by_suffix or is_json or text.startswith(_UTF_16) or _MARKUP.match(text):
        return FileType.JSON_LINES  # which says what is wrong with it
    raise FineTuneError(
        FailureReason.DATASET_INVALID,
        f"{name}: neither its content nor its name says what it is; name it in spec.files.type",
    )


def _begins_with_an_object(text: bytes) -> bool:
    line = text.lstrip().partition(b"\n")[0]
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_other_encodings(name: str, head: bytes, file_type: FileType) -> None:
    """Say it once for the file where every line would be wrong."""
    fault = None
    if head.startswith(_UTF_16):
        fault = "is UTF-16; save it as UTF-8"
    elif b"\0" in head:
        fault = "is binary or UTF-16, not text; save it as UTF-8"
    elif (_HTML if file_type is FileType.TEXT else _MARKUP).match(head.removeprefix(_BOM)):
        start = head.removeprefix(_BOM).strip()[:60].decode(errors="replace")
        wanted = {FileType.JSON_LINES: "JSON lines", FileType.JSON: "a JSON list"}.get(file_type, file_type.value)
        fault = f"is HTML or XML, not {wanted}; it starts with {start!r}"
    if fault:
        raise FineTuneError(FailureReason.DATASET_INVALID, f"{name}: {fault}")


def _json_lines(file: SourceFile, stream: io.BufferedReader) -> Iterator[RawRow | BadRow]:
    decoder = StrictDecoder()
    for number, line in _lines(stream):
        if line is None:
            yield _too_long(file, number)
        elif line.strip():
            yield parsed(Origin(file.name, number), line, decoder)


def _text_lines(file: SourceFile, stream: io.BufferedReader) -> Iterator[RawRow | BadRow]:
    for number, line in _lines(stream):
        if line is None:
            yield _too_long(file, number)
        elif line.strip():
            yield _text(Origin(file.name, number), line.rstrip(b"\r\n"))


def _document(file: SourceFile, stream: io.BufferedReader) -> Iterator[RawRow | BadRow]:
    """The whole file as one row."""
    content = stream.read(LINE_LIMIT + 1)
    if len(content) > LINE_LIMIT:
        fault = f"is longer than {LINE_LIMIT // 1024**2} MiB; cut it, or set spec.files.textRows to Line"
        yield BadRow(Origin(file.name, 1), fault)
    elif content.strip():
        yield _text(Origin(file.name, 1), content.removeprefix(_BOM).replace(b"\r\n", b"\n"))


def _text(origin: Origin, content: bytes) -> RawRow | BadRow:
    try:
        return RawRow(origin, {"text": content.decode()})
    except UnicodeDecodeError as error:
        return BadRow(origin, f"is not UTF-8 at byte {error.start + 1}; save the file as UTF-8")


def _too_long(file: SourceFile, number: int) -> BadRow:
    return BadRow(Origin(file.name, number), f"is longer than {LINE_LIMIT // 1024**2} MiB")


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without a byte order mark, None for one that is too long."""
    number = 0
    while line := stream.readline(LINE_LIMIT):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < LINE_LIMIT
        content = line.removeprefix(_BOM) if number == 1 else line
        yield number, content if is_whole else None
        while not is_whole and (rest := stream.readline(LINE_LIMIT)):
            is_whole = rest.endswith(b"\n")
