"""A JSON file that is one list of rows, read row by row: the whole list is never in memory."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.rows import BadRow, Origin, RawRow
from finetune_trainer.data.strictjson import StrictDecoder, as_row

_CHUNK = 1024 * 1024
_BLANK = re.compile(r"[ \t\n\r]*")


def read_list(name: str, stream: io.BufferedReader, limit: int) -> Iterator[RawRow | BadRow]:
    """The list's elements; one of more than `limit` characters is refused.

    Raises:
        FineTuneError: BadRow where the list breaks: what comes after cannot be told apart, so no row can be let pass.
    """
    window = _Window(name, stream, limit)
    window.expect("[")
    if window.peek() == "]":
        window.expect("]")
    else:
        yield window.element()
        while window.expect(",", "]") == ",":
            yield window.element()
    if window.peek():
        window.fail("has more text after the end of the list")


class _Window:
    """The part of the file that is in memory."""

    def __init__(self, name: str, stream: io.BufferedReader, limit: int) -> None:
        self._name = name
        self._stream = stream
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._decoder = StrictDecoder()
        self._text = ""
        self._at = 0
        self._line = 1
        self._is_end = False

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            self._advance(_BLANK.match(self._text, self._at).end())  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, *allowed: str) -> str:
        """Go past one of some characters."""
        found = self.peek()
        if found not in allowed or not found:
            wanted = " or ".join(repr(character) for character in allowed)
            self.fail(f"{'the file ends' if not found else f'has {found!r}'} where {wanted} has to be")
        self._advance(self._at + 1)
        return found

    def element(self) -> RawRow | BadRow:
        """Go past a value."""
        self.peek()
        origin = Origin(self._name, self._line)
        value, end = self._value()
        self._advance(end)
        return as_row(origin, value, self._decoder.fault)

    def fail(self, fault: str, line: int | None = None) -> NoReturn:
        """Give the list up."""
        raise FineTuneError(FailureReason.BAD_ROW, f"{self._name} line {line or self._line}: {fault}")

    def _value(self) -> tuple[Any, int]:
        while True:
            try:
                value, end = self._decoder.decode_at(self._text, self._at)
            except json.JSONDecodeError as error:
                # Broken, or only cut by the window's end: more text tells.
                if len(self._text) - self._at > self._limit:
                    self.fail(f"is longer than {self._limit // 1024**2} MiB, or broken: {error.msg}")
                if not self._more():
                    self.fail(f"{error.msg} at column {error.colno}", self._line_of(error.pos))
            except RecursionError:
                self.fail("is nested too deeply")
            except ValueError as error:
                self.fail(str(error))
            else:
                # A number that ends with the window may go on.
                if end < len(self._text) or not self._more():
                    return value, end

    def _more(self) -> bool:
        """Read on, as much again as is waiting, so that a long row is not parsed anew for every chunk."""
        if self._is_end:
            return False
        self._text, self._at = self._text[self._at :], 0
        chunk = self._stream.read(max(_CHUNK, len(self._text)))
        self._is_end = not chunk
        try:
            self._text += self._decode(chunk, final=self._is_end)
        except UnicodeDecodeError as error:
            line = self._line_of(len(self._text)) + chunk[: error.start].count(b"\n")
            self.fail("is not UTF-8; save the file as UTF-8", line)
        return True

    def _advance(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _line_of(self, position: int) -> int:
        return self._line + self._text.count("\n", self._at, position)
