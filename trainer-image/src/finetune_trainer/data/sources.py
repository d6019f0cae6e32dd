"""Where rows come from: the plan itself, files of a mounted volume, HTTP, the Hub or S3."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from finetune_contract.datasets import DatasetSource
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.files import is_within, sha256_of_all, some_of
from finetune_trainer.data.http import download
from finetune_trainer.data.sourcefile import SourceFile, named_read_errors


class Fetched(NamedTuple):
    """What a source holds now."""

    files: list[SourceFile]
    revision: str
    """The Hub's commit, else a digest of the files' content, whatever their names and order."""


def fetch(source: DatasetSource, mount: Path, scratch: Path) -> Fetched:
    """The source's files, readable in this pod.

    Args:
        source: Where rows come from.
        mount: Where the source's claim or ConfigMap is mounted.
        scratch: For what has to be downloaded.

    Raises:
        FineTuneError: SourceUnavailable, SourceNotFound, SourceAccessDenied or SourceChanged; DatasetInvalid for a
            wrong checksum; EphemeralStorageFull when the download does not fit the pod's scratch space.
    """
    commit: str | None = None
    with _named_scratch_errors():
        if source.hub is not None:
            from finetune_trainer.data import hub

            found, commit = hub.download(source.hub, scratch)
            files = [SourceFile(name, path) for name, path in found.items()]
        elif source.s3 is not None:
            from finetune_trainer.data import s3

            objects = s3.download(source.s3, scratch)
            files = [SourceFile(name, path) for name, path in objects.items()]
        elif source.http is not None:
            names = [PurePosixPath(url.partition("?")[0]).name or url for url in source.http.urls]
            paths = download(source.http, scratch)
            files = [SourceFile(name, path) for name, path in zip(names, paths, strict=True)]
        elif source.files is not None:
            with named_read_errors(f"spec.source: {source.files}"):
                files = _matching(source.files, mount)
        else:
            assert source.inline is not None
            path = scratch / "inline.jsonl"
            path.write_text(source.inline, encoding="utf-8")
            files = [SourceFile("spec.source.inline.jsonl", path)]
    return Fetched(files, commit or _digest_of(files))


@contextmanager
def _named_scratch_errors() -> Iterator[None]:
    """Downloads go to the pod's own disk, not to the store's volume."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FineTuneError(
                FailureReason.EPHEMERAL_STORAGE_FULL, f"spec.source: the download does not fit the pod's disk: {error}"
            ) from error
        raise


def _digest_of(files: list[SourceFile]) -> str:
    with named_read_errors("spec.source"):
        digests = sorted(sha256_of_all([file.path for file in files]))
    return "sha256:" + hashlib.sha256("".join(digests).encode()).hexdigest()


def address_of(source: DatasetSource) -> str:
    """The source in one line, for the lineage."""
    if source.hub is not None:
        config = f" {source.hub.config}" if source.hub.config else ""
        return f"hub:{source.hub.repo}{config} {source.hub.split}"
    if source.s3 is not None:
        return source.s3.uri
    if source.http is not None:
        return " ".join(source.http.urls)
    if source.mixture is not None:
        return "mixture:" + " ".join(
            f"{part.name}@{part.revision.digest}" + (f"*{part.weight:g}" if part.weight else "")
            for part in source.mixture
        )
    return f"files:{source.files}" if source.files is not None else "inline"


def _matching(pattern: str, mount: Path) -> list[SourceFile]:
    relative = PurePosixPath(pattern)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.source: {pattern} is not a path inside the volume")
    files = [SourceFile(path.relative_to(mount).as_posix(), path) for path in sorted(mount.glob(pattern))]
    # `..data` and its like are how the kubelet swaps a ConfigMap's files: the same content a second time.
    files = [file for file in files if file.path.is_file() and not file.name.startswith("..")]
    if not files:
        raise FineTuneError(
            FailureReason.SOURCE_NOT_FOUND,
            f"spec.source: no file matches {pattern}; the claim or ConfigMap holds {some_of(mount)}",
        )
    for file in files:
        if not is_within(file.path, mount):
            raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.source: {file.name} links out of the volume")
    return files
