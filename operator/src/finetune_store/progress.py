"""Progress lines of long copies, so that a pod's log shows that it is alive."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 5.0


@contextmanager
def progress(verb: str, directory: Path, total: int) -> Iterator[None]:
    """Log every few seconds how many of `total` bytes a directory holds."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(_INTERVAL_SECONDS):
            log.info("%s %s of %s", verb, in_units(bytes_below(directory)), in_units(total))

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    log.info("%s %s", verb, in_units(total))


def bytes_below(directory: Path) -> int:
    """Bytes of all files below a directory that others are writing to."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # renamed since it was listed
    return total


def in_units(count: float) -> str:
    """A number of bytes for people: `16.1 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
