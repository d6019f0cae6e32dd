"""The log of an attempt beside its result: it outlives the pod, and the Job that `ttlAfterFinished` removes.

It is written while the pod runs, so that one that is killed loses a minute of it at most; at first more often, for
what needs too much memory is killed while its model is loaded.
"""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract.failure import FineTuneError
from finetune_store.store import Store

log = logging.getLogger(__name__)

_HEAD_BYTES = 128 * 1024
_TAIL_BYTES = 896 * 1024
"""What is kept of a log: its beginning and its end, at most 1 MiB."""

INTERVAL = 60.0
"""Seconds between two writes at most, where something was said."""
_FIRST = 4.0
"""Seconds before the first; each pause is twice the one before."""


class KeptLog(logging.Handler):
    """Holds the first and the last lines of what is logged."""

    def __init__(self, before: str = "", head: int = _HEAD_BYTES, tail: int = _TAIL_BYTES) -> None:
        """Take what an earlier pod of the same attempt has left, and the limits in bytes."""
        super().__init__(logging.INFO)
        formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)
        self._limits = head, tail
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_bytes = self._tail_bytes = self._lost = 0
        self.is_changed = False
        if before:
            self._add(before.rstrip("\n"))
            self._add("--- another pod of this attempt ---")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message; `Handler` has taken its lock."""
        self._add(self.format(record))

    def note(self, text: str) -> None:
        """Keep something that is not logged."""
        with self.lock or threading.Lock():
            self._add(text)

    def text(self) -> str:
        """What is kept."""
        with self.lock or threading.Lock():
            self.is_changed = False
            gap = [f"--- {self._lost} bytes are left out ---"] if self._lost else []
            return "\n".join([*self._head, *gap, *self._tail, ""])

    def _add(self, text: str) -> None:
        self.is_changed = True
        for line in text.split("\n"):
            self._add_line(line[: self._limits[1] // 4])

    def _add_line(self, line: str) -> None:
        size = len(line.encode(errors="replace")) + 1
        if not self._tail and self._head_bytes + size <= self._limits[0]:
            self._head.append(line)
            self._head_bytes += size
            return
        self._tail.append(line)
        self._tail_bytes += size
        while self._tail_bytes > self._limits[1]:
            dropped = len(self._tail.popleft().encode(errors="replace")) + 1
            self._tail_bytes -= dropped
            self._lost += dropped


@contextmanager
def kept(store: Store, run_key: str, path: str, interval: float = INTERVAL) -> Iterator[None]:
    """Keep what is logged meanwhile, and why it ended, with a run.

    A log that cannot be written is no reason to fail: it is said in the log that the pod still has.

    Args:
        store: Where the run is.
        run_key: The run.
        path: Of the file in the run's directory.
        interval: Seconds between two writes at most.
    """
    handler = KeptLog(_before(store, run_key, path))
    ended = threading.Event()

    def write() -> None:
        try:
            store.record(run_key, path, handler.text())
        except (FineTuneError, OSError) as error:
            log.warning("the log cannot be kept at %s: %s", path, error)

    def work() -> None:
        pause = min(_FIRST, interval)
        while not ended.wait(pause):
            if handler.is_changed:
                write()
            pause = min(2 * pause, interval)

    thread = threading.Thread(target=work, name="kept-log", daemon=True)
    logging.getLogger().addHandler(handler)
    thread.start()
    try:
        yield
    except BaseException as error:
        if isinstance(error, FineTuneError):
            handler.note(f"{error.reason}: {error}")
        else:
            handler.note("".join(traceback.format_exception(error)).rstrip("\n"))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        ended.set()
        thread.join()
        write()


def _before(store: Store, run_key: str, path: str) -> str:
    try:
        return store.recorded(run_key, path) or ""
    except (FineTuneError, OSError):
        return ""
