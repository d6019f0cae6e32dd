"""Reading, writing and verifying the manifest of a stored directory."""

from pathlib import Path

from pydantic import ValidationError

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import FileEntry, Manifest, StoredKind, digest_of_files
from finetune_contract.paths import MANIFEST_FILE
from finetune_store.files import regular_files, sha256_of_all, write_atomically


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, last: with it the directory is complete."""
    write_atomically(directory / MANIFEST_FILE, manifest.to_json())


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a complete directory.

    Raises:
        FineTuneError: StorageUnavailable when the directory, or its manifest, is not there; ChecksumMismatch when the
            manifest is damaged.
    """
    path = directory / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        missing = "has no manifest, so it is incomplete" if directory.is_dir() else "is not in the store"
        raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{directory}: {missing}") from error
    except ValidationError as error:
        raise FineTuneError(
            FailureReason.CHECKSUM_MISMATCH, f"{path}: is damaged: {error.errors()[0]['msg']}"
        ) from error


def verify_directory(directory: Path) -> Manifest:
    """Check every file of a directory against its manifest, and the manifest against its digest.

    Raises:
        FineTuneError: CheckpointCorrupt for a checkpoint, ChecksumMismatch for the rest; the message names the file.
    """
    manifest = read_manifest(directory)
    fault = _fault_in(directory, manifest)
    if fault:
        is_checkpoint = manifest.kind is StoredKind.CHECKPOINT
        reason = FailureReason.CHECKPOINT_CORRUPT if is_checkpoint else FailureReason.CHECKSUM_MISMATCH
        raise FineTuneError(reason, fault)
    return manifest


def _fault_in(directory: Path, manifest: Manifest) -> str | None:
    """What is wrong with a directory, cheapest check first."""
    # A dataset's digest is over its canonical rows, which only its publisher could compute.
    if manifest.kind is not StoredKind.DATASET and manifest.digest != digest_of_files(manifest.files):
        return f"{directory / MANIFEST_FILE}: its digest is not that of its files"
    paths = [directory / entry.path for entry in manifest.files]
    present = set(regular_files(directory))
    if unlisted := present - set(paths):
        return f"{min(unlisted)}: is not in the manifest"
    if missing := set(paths) - present:
        return f"{min(missing)}: is missing"
    for entry, path in zip(manifest.files, paths, strict=True):
        if path.stat().st_size != entry.size:
            return f"{path}: has {path.stat().st_size} bytes; the manifest says {entry.size}"
    return _content_fault(manifest.files, paths)


def _content_fault(entries: tuple[FileEntry, ...], paths: list[Path]) -> str | None:
    for entry, path, found in zip(entries, paths, sha256_of_all(paths), strict=True):
        if found != entry.sha256:
            return f"{path}: has sha256 {found}; the manifest says {entry.sha256}"
    return None
