"""Normalised rows in a file of the pod's scratch space: in memory stays what orders, counts and finds them.

About 100 bytes per row instead of the row: a million rows of any length fit a small pod.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from finetune_trainer.data.near import Array
from finetune_trainer.data.rows import Origin, Row

_DIGEST_BYTES = 32


class Measures(NamedTuple):
    """What was measured of a row."""

    label: str | None = None
    tokens: int = 0
    supervised: int = 0
    """Tokens that the loss is on."""
    first: int = 0
    """Place of the first of them that something before it predicts; `tokens` where there is none."""
    turns: int = 1
    characters: int = 0


class Shelf:
    """Rows are put on it once, then taken from it by number, in the order of their digests."""

    def __init__(self, directory: Path) -> None:
        """Take a directory for the files; they are gone when the shelf is closed."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._file = (directory / "rows").open("w+b")
        self._bands = (directory / "bands").open("w+b")
        self._blocks: list[int] = []
        """Rows of each block of band keys."""
        self._band_count = 0
        self._places: dict[Origin, int] = {}
        self._origins: list[Origin] = []
        self._labels: dict[str | None, int] = {}
        self._digests = bytearray()
        self._ends = array("Q", [0])
        self._lines = array("Q")
        self._numbers = {name: array("I") for name in ("place", *Measures._fields)}
        self._order: Array | None = None

    def __enter__(self) -> Self:
        """Use it, and remove its files in the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the files."""
        for file in (self._file, self._bands):
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._lines)

    def put(self, rows: Sequence[Row], measures: Sequence[Measures], bands: Array | None) -> None:
        """Add rows with what was measured of them, and their band keys: shape (bands, rows)."""
        for row, measured in zip(rows, measures, strict=True):
            data = row.canonical.encode()
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))
            self._digests += bytes.fromhex(row.digest)
            self._lines.append(row.origin.line)
            self._numbers["place"].append(self._place_of(row.origin))
            label = self._labels.setdefault(measured.label, len(self._labels))
            for name, value in zip(Measures._fields, (label, *measured[1:]), strict=True):
                self._numbers[name].append(value)
        if bands is not None and rows:
            self._band_count = len(bands)
            self._blocks.append(len(rows))
            self._bands.write(np.ascontiguousarray(bands).tobytes())

    def _place_of(self, origin: Origin) -> int:
        place = replace(origin, line=0)
        if place not in self._places:
            self._places[place] = len(self._origins)
            self._origins.append(place)
        return self._places[place]

    def sort(self) -> None:
        """Number the rows by digest, and equal ones by where they were read: all that follows depends on nothing else.

        No row is added after this.
        """
        self._file.flush()
        self._bands.flush()
        names = np.array([origin.file for origin in self._origins] or [""])
        rank = np.argsort(np.argsort(names))[np.frombuffer(self._numbers["place"], np.uint32)]
        digests = np.frombuffer(self._digests, np.dtype(">u8")).reshape(-1, _DIGEST_BYTES // 8)
        lines = np.frombuffer(self._lines, np.uint64)
        self._order = np.lexsort((lines, rank, *digests.T[::-1]))

    @property
    def _by_digest(self) -> Array:
        assert self._order is not None, "sort() comes first"
        return self._order

    # --- rows by their number ---

    def row(self, number: int) -> Row:
        """A row."""
        place = int(self._by_digest[number])
        start, end = self._ends[place], self._ends[place + 1]
        canonical = os.pread(self._file.fileno(), end - start, start).decode()
        return Row(self.origin(number), canonical, self.digest(number))

    def rows(self, numbers: Sequence[int] | Array) -> Iterator[Row]:
        """Rows, one at a time."""
        return (self.row(int(number)) for number in numbers)

    def text(self, number: int) -> str:
        """Everything in a row that a person would read."""
        return self.row(number).text()

    def digest(self, number: int) -> str:
        """A row's digest, 64 hexadecimal digits."""
        place = int(self._by_digest[number]) * _DIGEST_BYTES
        return self._digests[place : place + _DIGEST_BYTES].hex()

    def origin(self, number: int) -> Origin:
        """Where a row was read."""
        place = int(self._by_digest[number])
        return replace(self._origins[self._numbers["place"][place]], line=self._lines[place])

    def label(self, number: int) -> str | None:
        """A row's label, where it has one."""
        return self.labels[int(self.measure("label")[number])]

    @property
    def labels(self) -> list[str | None]:
        """All labels, by their number in `measure("label")`."""
        return list(self._labels)

    def measure(self, name: str) -> Array:
        """What was measured of every row: a field of Measures."""
        found: Array = np.frombuffer(self._numbers[name], np.uint32)[self._by_digest]
        return found

    def first_of_equals(self) -> Array:
        """For each row the number of the first one with the same digest: its own where there is none before."""
        digests = np.frombuffer(self._digests, np.dtype(">u8")).reshape(-1, _DIGEST_BYTES // 8)[self._by_digest]
        is_new = np.ones(len(self), bool)
        is_new[1:] = (digests[1:] != digests[:-1]).any(axis=1)
        firsts: Array = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
        return firsts

    def band_keys(self, numbers: Array) -> Iterator[Array]:
        """One band after the other: the keys of these rows. Memory: one band."""
        order = self._by_digest[numbers]
        for band in range(self._band_count):
            yield self._read_band(band)[order]

    def _read_band(self, band: int) -> Array:
        pieces, offset = [], 0
        for rows in self._blocks:
            data = os.pread(self._bands.fileno(), rows * 8, offset + band * rows * 8)
            pieces.append(np.frombuffer(data, np.uint64))
            offset += rows * 8 * self._band_count
        return np.concatenate(pieces) if pieces else np.array([], np.uint64)


def label_of(value: dict[str, Any]) -> str | None:
    """The label of a row's columns as text; None where it has none."""
    label = value.get("label")
    if label is None:
        return None
    return str(label).lower() if isinstance(label, bool) else str(label)
