"""Whose disk a failed write means: the store's volume, or the pod's own (emptyDir, the node's disk)."""

import errno
import os
from pathlib import Path

from finetune_contract.failure import FailureReason
from finetune_contract.paths import SCRATCH_MOUNT, STORE_MOUNT

FULL = (errno.ENOSPC, errno.EDQUOT)

_CACHE_MARK = ".copies"


def mark_as_cache(store: Path) -> None:
    """Note that a directory holds copies of a store that is elsewhere: its disk is the pod's own."""
    try:
        (store / _CACHE_MARK).touch()
    except OSError as error:
        if error.errno != errno.EROFS:  # a container that only reads; the one that copied has marked it
            raise


def reason_when_full(path: object, *, store: Path = STORE_MOUNT, scratch: Path = SCRATCH_MOUNT) -> FailureReason:
    """The name of a write that found no space.

    Args:
        path: `OSError.filename`. `write(2)` names no file: then the disk with less room left is meant.
        store: Where the store's volume is mounted, or copies of what is in S3 are kept.
        scratch: A directory on the pod's own disk.
    """
    if (store / _CACHE_MARK).exists():
        return FailureReason.EPHEMERAL_STORAGE_FULL
    if isinstance(path, str | bytes):
        is_own = not Path(os.fsdecode(path)).is_relative_to(store)
    else:
        own, stored = _free(scratch), _free(store)
        is_own = own is not None and stored is not None and own < stored
    return FailureReason.EPHEMERAL_STORAGE_FULL if is_own else FailureReason.STORAGE_FULL


def _free(directory: Path) -> int | None:
    """Bytes that may still be written; None where there is no such directory."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
