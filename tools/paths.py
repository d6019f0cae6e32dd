"""Where things live: one cache per user, outside the repository, for every clone; and one `.local/` per clone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.console import say

REPOSITORY = Path(__file__).resolve().parent.parent

LOCAL = REPOSITORY / ".local"
"""What belongs to this clone only and is never committed: its kubeconfig, the image references it built."""

KUBECONFIG = LOCAL / "kubeconfig"

IMAGES_FILE = LOCAL / "images.json"
"""The references that `make images` built from this clone: {"operator": ..., "trainer": ...}."""


def cache() -> Path:
    """The cache folder: FINETUNE_CACHE, else XDG_CACHE_HOME/finetune-operator, else ~/.cache/finetune-operator."""
    if chosen := os.environ.get("FINETUNE_CACHE"):
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "finetune-operator"


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock `name` of this cache, so that two clones never do the same work at once.

    The kernel drops the lock with its process, however that ends.
    """
    file = cache() / "locks" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not inheritable (Python's default), so that a detached cluster process never keeps it.
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {file}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
