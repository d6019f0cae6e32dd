"""SIGTERM: stop soon, at a point where nothing is lost.

While training, the step in hand is finished and saved first; while publishing, the run is brought to its end, which is
a success. Everywhere else there is nothing to save, so the process stops at once. An unfinished run ends as Preempted
(exit code 78), never as a success.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_contract.failure import FailureReason, FineTuneError


class Stop:
    """Whether the pod was told to stop, and whether that may interrupt what is going on."""

    def __init__(self) -> None:
        """Not asked to stop, and interruptible."""
        self.requested = False
        self._deferred = False

    def install(self) -> None:
        """Listen to SIGTERM; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a request only sets `requested`: whoever is at work finishes, and decides."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Stop here if the pod was told to.

        Raises:
            FineTuneError: Preempted.
        """
        if self.requested:
            raise FineTuneError(FailureReason.PREEMPTED, "the pod was told to stop (SIGTERM)")

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._deferred:
            self.check()
