"""What keeps a directory of the store from being collected: its last use. And the way back for one that was set aside.

The collector and everybody else meet here, without locks, which not every volume has:

    a user       marks the directory as used, then reads it by its path
    the collector  sets the directory aside by a rename, then looks again whether it was used

Whatever the order, either the collector sees the mark, or the user misses the directory and brings it back. A collector
that dies between its steps leaves a directory that any user, and the next collector, can bring back.
"""

import errno
import os
from pathlib import Path

from finetune_store.files import make_directory

_ASIDE = ".collected"
_NAMESPACES = ".namespaces"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""A serving pod mounts the store read-only; what it reads is in its plan, so it is in use anyway."""


def use(root: Path, directory: Path) -> None:
    """Say that a directory, or the entry of the store it is part of, is used now; nothing if there is none.

    Brings it back if it has been set aside. Must come before the directory is read by its path.
    """
    entry = root.joinpath(*directory.relative_to(root).parts[:2])
    try:
        os.utime(entry)
    except FileNotFoundError:
        if bring_back(root, entry):
            use(root, entry)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise


def last_use(directory: Path) -> float:
    """When a directory was last used, in seconds since 1970."""
    # NFS clients cache attributes for a minute; opening asks the server.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def set_aside(root: Path, directory: Path) -> Path:
    """Take a directory from its place, not yet for good; answers where it is now."""
    aside = _aside_of(root, directory)
    make_directory(aside.parent)
    directory.rename(aside)
    return aside


def bring_back(root: Path, directory: Path) -> bool:
    """Put a directory back that was set aside; False if it was not, or its place is taken."""
    try:
        _aside_of(root, directory).rename(directory)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, *_READ_ONLY):
            return False
        raise
    return True


def all_aside(root: Path) -> list[tuple[Path, Path]]:
    """Where directories are that a collector set aside, and where they belong."""
    folder = root / _ASIDE
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(path, root.joinpath(*path.name.split("-", 1))) for path in found]


def register(root: Path, namespace: str) -> None:
    """Leave a note that a namespace uses this store: one that several share must not be collected for one of them."""
    (make_directory(root / _NAMESPACES) / namespace).touch()


def namespaces(root: Path) -> set[str]:
    """The namespaces that have used this store."""
    folder = root / _NAMESPACES
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _aside_of(root: Path, directory: Path) -> Path:
    return root / _ASIDE / f"{directory.parent.name}-{directory.name}"
