"""Where rows come from: the plan itself, files of a mounted volume, or HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune_contract.datasets import DatasetSource
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.files import is_within
from finetune_trainer.data.http import download


@dataclass(frozen=True)
class SourceFile:
    """A file in this pod, under the name that its author knows."""

    name: str
    path: Path


@contextmanager
def named_read_errors(name: str) -> Iterator[None]:
    """Make an OSError of the source's volume a SourceUnavailable: the store's own volume is another one."""
    try:
        yield
    except OSError as error:
        raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{name}: {error.strerror or error}") from error


def fetch(source: DatasetSource, mount: Path, scratch: Path) -> list[SourceFile]:
    """The source's files, readable in this pod.

    Args:
        source: Where rows come from.
        mount: Where the source's claim or ConfigMap is mounted.
        scratch: For what has to be downloaded.

    Raises:
        FineTuneError: SourceUnavailable, or DatasetInvalid for a wrong checksum.
    """
    if source.http is not None:
        names = [PurePosixPath(url.partition("?")[0]).name or url for url in source.http.urls]
        paths = download(source.http, scratch)
        return [SourceFile(name, path) for name, path in zip(names, paths, strict=True)]
    if source.files is not None:
        with named_read_errors(f"spec.source: {source.files}"):
            return _matching(source.files, mount)
    assert source.inline is not None
    path = scratch / "inline.jsonl"
    path.write_text(source.inline, encoding="utf-8")
    return [SourceFile("spec.source.inline.jsonl", path)]


def address_of(source: DatasetSource) -> str:
    """The source in one line, for the lineage."""
    if source.http is not None:
        return " ".join(source.http.urls)
    return f"files:{source.files}" if source.files is not None else "inline"


def _matching(pattern: str, mount: Path) -> list[SourceFile]:
    relative = PurePosixPath(pattern)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.source: {pattern} is not a path inside the volume")
    files = [SourceFile(path.relative_to(mount).as_posix(), path) for path in sorted(mount.glob(pattern))]
    # `..data` and its like are how the kubelet swaps a ConfigMap's files: the same content a second time.
    files = [file for file in files if file.path.is_file() and not file.name.startswith("..")]
    if not files:
        there = sorted(path.name for path in mount.iterdir() if not path.name.startswith(".."))
        found = ", ".join(there[:10]) or "nothing"
        raise FineTuneError(
            FailureReason.SOURCE_UNAVAILABLE, f"spec.source: no file matches {pattern}; the volume holds {found}"
        )
    for file in files:
        if not is_within(file.path, mount):
            raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.source: {file.name} links out of the volume")
    return files
