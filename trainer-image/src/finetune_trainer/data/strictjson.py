"""JSON as the standard has it: a key once, no NaN, numbers that have a value; and what is wrong where it is not."""

import json
import math
from typing import Any

from finetune_trainer.data.rows import BadRow, Origin, RawRow


class StrictDecoder:
    """Decodes values; what parses but is no good JSON is noted in `fault`, not raised: reading goes on."""

    def __init__(self) -> None:
        self.fault: str | None = None
        """What was wrong with the last value."""
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_float=self._number
        )

    def decode(self, text: str) -> Any:  # noqa: ANN401 - JSON
        """The one value of a text; raises ValueError or RecursionError."""
        self.fault = None
        return self._decoder.decode(text)

    def decode_at(self, text: str, start: int) -> tuple[Any, int]:
        """The value at a place, and where it ends; raises like `decode`."""
        self.fault = None
        return self._decoder.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            keys = [key for key, _ in pairs]
            self.fault = f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice"
        return value

    def _constant(self, name: str) -> None:
        self.fault = f"holds {name}, which is not JSON"

    def _number(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            self.fault = f"holds {text[:20]}, which is too large for a number"
        return value


def parsed(origin: Origin, line: bytes, decoder: StrictDecoder) -> RawRow | BadRow:
    """The row that a line is, or what is wrong with it."""
    try:
        value = decoder.decode(line.rstrip().decode())
    except UnicodeDecodeError as error:
        return BadRow(origin, f"is not UTF-8 at byte {error.start + 1}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        if line.strip() == b"{":
            return BadRow(origin, "begins an object that goes over several lines; write one row per line, or a list")
        return BadRow(origin, f"{error.msg.removesuffix(' at')} at column {error.colno}")
    except RecursionError:
        return BadRow(origin, "is nested too deeply")
    except ValueError as error:
        return BadRow(origin, str(error))
    return as_row(origin, value, decoder.fault)


def as_row(origin: Origin, value: object, fault: str | None) -> RawRow | BadRow:
    """A decoded value as a row."""
    if fault is not None:
        return BadRow(origin, fault)
    if not isinstance(value, dict):
        return BadRow(origin, f"is {kind_of(value)}, not an object")
    return RawRow(origin, value)


_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


def kind_of(value: object) -> str:
    """A value's type in words: `a list`. Parquet has types that JSON lacks."""
    if value is None:
        return "null"
    return _KINDS.get(type(value)) or f"a {type(value).__name__}"
