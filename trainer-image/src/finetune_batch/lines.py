"""Files of requests in OpenAI's batch input format: read once as a whole, then again shard by shard.

The first reading needs no model: it counts, hashes, finds lines that are no requests and ids that are not unique, and
remembers where every 256th row begins.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from finetune_batch.items import Fault, Item
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.gate import BODY_LIMIT
from finetune_server.model import LanguageModel
from finetune_trainer.data.sourcefile import SourceFile, named_read_errors

URLS = ("/v1/chat/completions", "/v1/completions")

_STRIDE = 256
"""Rows between two remembered places."""

_FIELDS = frozenset({"custom_id", "method", "url", "body"})

_LONGEST_ID = 512
"""Characters of a custom_id."""


@dataclass(frozen=True)
class _Line:
    file: int
    offset: int
    number: int
    """From 1, in its file, blank lines counted."""
    text: bytes | None
    """None: longer than BODY_LIMIT."""


class Requests:
    """The requests of some files, one a line; blank lines are none."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        """Read all of them once.

        Raises:
            FineTuneError: SourceUnavailable when they cannot be read, DatasetInvalid when there is no request.
        """
        self._files = files
        self._as_read = [_version(file) for file in files]
        self.rows = 0
        self.faults = 0
        self.first_fault: Item | None = None
        self._places: list[tuple[int, int, int]] = []
        digest = hashlib.sha256()
        ids = array("Q")
        rows_of_ids = array("Q")
        for line in self._lines(0, 0, 1, digest):
            if self.rows % _STRIDE == 0:
                self._places.append((line.file, line.offset, line.number))
            item = self._item(line, self.rows)
            if item.fault is not None:
                self.faults += 1
                self.first_fault = self.first_fault or item
            elif item.custom_id is not None:
                # 64 bits: among two million ids, one false duplicate in ten million batches.
                hashed = hashlib.blake2b(item.custom_id.encode(errors="surrogatepass"), digest_size=8).digest()
                ids.append(int.from_bytes(hashed, "little"))
                rows_of_ids.append(self.rows)
            self.rows += 1
        if not self.rows:
            names = ", ".join(file.name for file in files)
            raise FineTuneError(FailureReason.DATASET_INVALID, f"spec.input.jsonl: {names}: holds no request")
        self.digest = "sha256:" + digest.hexdigest()
        self._repeated = _repeated(ids, rows_of_ids)
        self.faults += len(self._repeated)
        for row in self._repeated[:1].tolist():
            if self.first_fault is None or row < self.first_fault.number:
                (self.first_fault,) = self._read(row, 1)

    def items(self, first: int, count: int, model: LanguageModel) -> Iterator[Item]:  # noqa: ARG002 - other inputs'
        """Some rows in their order.

        Raises:
            FineTuneError: SourceChanged when a file is not the one that was read first.
        """
        if [_version(file) for file in self._files] != self._as_read:
            raise FineTuneError(
                FailureReason.SOURCE_CHANGED,
                "spec.input.jsonl: a file was written to while it was read; leave it alone until the batch has ended",
            )
        return self._read(first, count)

    def _read(self, first: int, count: int) -> Iterator[Item]:
        file, offset, number = self._places[first // _STRIDE]
        at = first - first % _STRIDE
        for line in self._lines(file, offset, number):
            if at >= first + count:
                return
            if at >= first:
                yield self._checked(self._item(line, at))
            at += 1

    def _lines(self, file: int, offset: int, number: int, digest: Any = None) -> Iterator[_Line]:  # noqa: ANN401
        """The lines from a place on, but blank ones; `digest` is told every byte."""
        for index in range(file, len(self._files)):
            source = self._files[index]
            with named_read_errors(f"spec.input.jsonl: {source.name}"), source.path.open("rb") as opened:
                opened.seek(offset)
                while raw := opened.readline(BODY_LIMIT):
                    here, is_long = offset, len(raw) == BODY_LIMIT and not raw.endswith(b"\n")
                    offset += len(raw)
                    if digest:
                        digest.update(raw)
                    if is_long:
                        offset += _skip_rest(opened, digest)
                    if is_long or raw.strip():
                        yield _Line(index, here, number, None if is_long else raw)
                    number += 1
            offset, number = 0, 1

    def _item(self, line: _Line, row: int) -> Item:
        place = f"{self._files[line.file].name} line {line.number}"
        if line.text is None:
            return Item(row, place, fault=_no_request("line_too_long", f"is longer than {BODY_LIMIT} bytes"))
        try:
            value = json.loads(line.text.decode())
        except UnicodeDecodeError as error:
            return Item(row, place, fault=_no_request("invalid_json_line", f"is not UTF-8 at byte {error.start + 1}"))
        except RecursionError:
            return Item(row, place, fault=_no_request("invalid_json_line", "is nested too deeply"))
        except ValueError as error:
            return Item(row, place, fault=_no_request("invalid_json_line", f"is not JSON: {error}"[:200]))
        if not isinstance(value, dict):
            return Item(row, place, fault=_no_request("invalid_json_line", "is not an object"))
        custom_id = value.get("custom_id")
        has_id = isinstance(custom_id, str) and 0 < len(custom_id) <= _LONGEST_ID
        known = custom_id if has_id else None
        if fault := _fault_in(value, has_id=has_id):
            return Item(row, place, known, fault=fault)
        return Item(row, place, known, value["url"], value["body"])

    def _checked(self, item: Item) -> Item:
        at = int(np.searchsorted(self._repeated, item.number))
        if item.fault is None and at < len(self._repeated) and self._repeated[at] == item.number:
            return Item(item.number, item.place, item.custom_id, fault=_repetition(item.custom_id))
        return item


def _skip_rest(file: BinaryIO, digest: Any) -> int:  # noqa: ANN401 - hashlib's own type has no name
    """Read to the end of a line; how many bytes that were."""
    skipped = 0
    while raw := file.readline(BODY_LIMIT):
        skipped += len(raw)
        if digest:
            digest.update(raw)
        if raw.endswith(b"\n"):
            break
    return skipped


def _version(file: SourceFile) -> tuple[int, int]:
    with named_read_errors(f"spec.input.jsonl: {file.name}"):
        found = file.path.stat()
    return found.st_size, found.st_mtime_ns


def _repeated(ids: "array[int]", rows: "array[int]") -> Any:  # noqa: ANN401 - a numpy array
    """The rows whose id an earlier row has, in their order."""
    values = np.frombuffer(ids, dtype=np.uint64) if ids else np.empty(0, np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_again = np.concatenate([[False], ordered[1:] == ordered[:-1]]) if len(ordered) else np.empty(0, bool)
    return np.sort(np.array(rows, dtype=np.int64)[order[is_again]])


def _fault_in(value: dict[str, Any], *, has_id: bool) -> Fault | None:
    """What keeps an object from being a request, the first of all there is."""
    if not has_id:
        return _no_request(
            "missing_required_parameter", f"custom_id: has to be 1 to {_LONGEST_ID} characters", "custom_id"
        )
    if unknown := sorted(map(str, value.keys() - _FIELDS)):
        return _no_request("unknown_parameter", f"{unknown[0][:100]}: is no field of a request", unknown[0][:100])
    if value.get("method") != "POST":
        return _no_request("invalid_method", f"method: has to be POST, not {str(value.get('method'))[:60]!r}", "method")
    if value.get("url") not in URLS:
        message = f"url: has to be {' or '.join(URLS)}, not {str(value.get('url'))[:60]!r}"
        return _no_request("invalid_url", message, "url")
    if not isinstance(value.get("body"), dict):
        return _no_request("missing_required_parameter", "body: has to be an object", "body")
    return None


def _repetition(custom_id: str | None) -> Fault:
    message = f"custom_id: {str(custom_id)[:60]!r} is an earlier request's; every request needs its own"
    return _no_request("duplicate_custom_id", message, "custom_id")


def _no_request(code: str, message: str, param: str | None = None) -> Fault:
    return Fault(code, message, param)
