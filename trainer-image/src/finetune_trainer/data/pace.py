"""How far a long step is, in the log, every few seconds."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

_SECONDS = 5.0

T = TypeVar("T")


class Pace:
    """Counts rows."""

    def __init__(self, verb: str) -> None:
        """Take what is done to them, in the past: `inspected`."""
        self._verb = verb
        self._started = self._said = time.monotonic()
        self.rows = 0

    def add(self, rows: int) -> None:
        """So many more; says so where nothing was said for some time."""
        self.rows += rows
        now = time.monotonic()
        if now - self._said >= _SECONDS:
            self._said = now
            log.info("%s", self)

    def of(self, items: Iterable[T]) -> Iterator[T]:
        """The items, counted as they go by."""
        for item in items:
            yield item
            self.add(1)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    def __str__(self) -> str:
        """`inspected 120,000 rows, 8,400 a second`."""
        return f"{self._verb} {self.rows:,} rows, {self.rows / max(self.seconds, 1e-9):,.0f} a second"
