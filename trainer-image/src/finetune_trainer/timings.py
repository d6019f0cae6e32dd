"""Where the wall time of an attempt went."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract.results import Timing


class Stopwatch:
    """Adds up seconds per stage."""

    def __init__(self) -> None:
        """Nothing measured yet."""
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens within."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def timings(self) -> tuple[Timing, ...]:
        """Seconds per stage so far."""
        return tuple(Timing(stage=name, seconds=round(seconds, 3)) for name, seconds in self._seconds.items())
