"""The row that every step passes on, and the list of rows that were left out."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from finetune_contract.cleaning import Changed, ChangeReason
from finetune_contract.datasets import Dropped, DropReason


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was read; written `tickets.jsonl line 7`."""

    file: str
    line: int
    """Counted from 1, blank lines included: what an editor shows."""
    unit: str = "line"
    """What `line` counts: rows where a file has no lines."""

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.line}"


class RowFaultError(Exception):
    """What is wrong with one row; the caller knows its line and whether it may be tolerated."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A JSON object of a source."""

    origin: Origin
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that is no row, and why."""

    origin: Origin
    fault: str


@dataclass(frozen=True, slots=True)
class Row:
    """A normalised row, held once, as its canonical JSON."""

    origin: Origin
    canonical: str
    digest: str
    """sha256 of `canonical`, 64 hexadecimal digits: the row's identity, order and share of the split."""

    def value(self) -> dict[str, Any]:
        """The row's columns."""
        value: dict[str, Any] = json.loads(self.canonical)
        return value

    def text(self) -> str:
        """Everything in the row that a person would read."""
        return text_of(self.value())


def text_of(value: dict[str, Any]) -> str:
    """Everything in a row's columns that a person would read."""
    if "messages" in value:
        return "\n".join(message["content"] for message in value["messages"])
    return "\n".join(_texts(value.values()))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """Texts, and the contents of turns; a mark such as a preference's label is no text."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (turn["content"] for turn in value)


def make_row(origin: Origin, value: dict[str, Any]) -> Row:
    """A row from normalised columns.

    Raises:
        UnicodeEncodeError: For half a surrogate pair, which JSON can write and UTF-8 cannot.
    """
    canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Row(origin, canonical, hashlib.sha256(canonical.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that is not in the revision."""

    origin: Origin
    reason: DropReason
    detail: str = ""
    """The fault, or the row that it duplicates; never the row's content, which may be personal."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row that is in the revision, but not as it was read, or not where it would have been."""

    origin: Origin
    reason: ChangeReason
    detail: str = ""


@dataclass
class Account:
    """What became of the rows that were read: nothing is dropped without being listed here."""

    read: int = 0
    drops: list[Drop] = field(default_factory=list)
    counts: Counter[DropReason] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    changed: Counter[ChangeReason] = field(default_factory=Counter)
    """Rows by reason; where all rows are changed alike, none is listed."""

    def drop(self, origin: Origin, reason: DropReason, detail: str = "") -> None:
        """List a row as left out."""
        self.drops.append(Drop(origin, reason, detail))
        self.counts[reason] += 1

    def change(self, change: Change) -> None:
        """List a row as changed."""
        self.changes.append(change)
        self.changed[change.reason] += 1

    def changed_by_reason(self) -> tuple[Changed, ...]:
        """How many rows were changed, by reason, most first."""
        return tuple(Changed(reason=reason, rows=rows) for reason, rows in self.changed.most_common())

    def counted(self) -> str:
        """The rows left out by reason, in brackets, for a message; empty where none is."""
        counts = ", ".join(f"{dropped.rows} {dropped.reason}" for dropped in self.by_reason())
        return f" ({counts})" if counts else ""

    def by_reason(self) -> tuple[Dropped, ...]:
        """How many rows were left out, by reason, most first."""
        return tuple(Dropped(reason=reason, rows=rows) for reason, rows in self.counts.most_common())
