"""Files on a volume that may be NFS: hashed, fsynced, renamed into place.

A rename survives a crash only when the file, then its directory, were fsynced; every writer here does both.
"""

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import FileEntry
from finetune_contract.paths import MANIFEST_FILE

_HASHING_THREADS = 4
"""hashlib releases the GIL; more readers than this gain nothing on a network volume."""


def make_directory(path: Path) -> Path:
    """Make a directory and its parents, writable for the group: pods share the claim by their fsGroup."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        allow_group(path)
    return path


def allow_group(directory: Path) -> None:
    """Let the group write and enter, whatever the umask; keeps setgid, which hands the group down."""
    directory.chmod(directory.stat().st_mode | stat.S_IRWXG)


def is_within(path: Path, root: Path) -> bool:
    """Whether a path, with every symlink followed, is the root or below it."""
    return path.resolve().is_relative_to(root.resolve())


def sync(path: Path) -> None:
    """Flush a file or a directory to the volume."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that readers see the old one, the new one, and nothing between, even after a crash."""
    temporary = write_beside(path, text)
    temporary.replace(path)
    sync(path.parent)


def write_beside(path: Path, text: str) -> Path:
    """Write and fsync a file's content under a temporary name in the same directory."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary = Path(file.name)
    temporary.chmod(0o664)
    return temporary


def regular_files(directory: Path) -> Iterator[Path]:
    """Every file below a directory but its manifest.

    Raises:
        FineTuneError: StorageUnavailable for a symlink or a special file, which a copy elsewhere could not keep.
    """
    for parent, directories, names in os.walk(directory):
        for path in (Path(parent, name) for name in sorted((*directories, *names))):
            kind = path.lstat().st_mode
            if stat.S_ISREG(kind):
                # `.nfs*` are files that an NFS client keeps for a process which still has them open.
                if path != directory / MANIFEST_FILE and not path.name.startswith(".nfs"):
                    yield path
            elif not stat.S_ISDIR(kind):
                raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{path}: is not a regular file")


def sha256_of(path: Path) -> str:
    """A file's sha256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(paths: list[Path]) -> list[str]:
    """The sha256 of each file, read side by side."""
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return list(pool.map(sha256_of, paths))


def entries_of(directory: Path) -> tuple[FileEntry, ...]:
    """What a manifest says about a directory's files, sorted by path."""
    paths = sorted(regular_files(directory))
    return tuple(
        FileEntry(path=PurePosixPath(path.relative_to(directory)).as_posix(), size=path.stat().st_size, sha256=digest)
        for path, digest in zip(paths, sha256_of_all(paths), strict=True)
    )


def sync_tree(directory: Path) -> None:
    """Flush every file and directory below a directory, then itself; make all of it writable for the group."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            sync(Path(parent, name))
        allow_group(Path(parent))
        sync(Path(parent))


def age_of_tree(directory: Path) -> float:
    """Seconds since anything below a directory was last written."""
    return time.time() - last_write_below(directory)


def last_write_below(directory: Path) -> float:
    """When anything below a directory, or itself, was last written, in seconds since 1970."""
    newest = directory.stat().st_mtime
    for parent, directories, names in os.walk(directory):
        for name in (*directories, *names):
            newest = max(newest, Path(parent, name).lstat().st_mtime)
    return newest


def remove_tree(directory: Path) -> None:
    """Remove a directory that another pod may be removing too; its manifest first, so that it is never half good."""
    (directory / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def some_of(directory: Path) -> str:
    """What a user's volume holds, for a message about something that it does not; at most ten names."""
    # `..data` and its like are how the kubelet swaps a ConfigMap's files.
    there = sorted(path.name for path in directory.iterdir() if not path.name.startswith(".."))
    return ", ".join([*there[:10], *(["..."] if there[10:] else [])]) or "nothing"
