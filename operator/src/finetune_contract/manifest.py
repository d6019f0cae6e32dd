"""The manifest of a stored directory, and the digest that names it.

A stored directory (dataset revision, model, checkpoint, artifact) is complete when its `manifest.json` is there. Its
digest is over the files' names, sizes and contents and over nothing else, so the same content always has the same name.
A model card tells of the content and is not part of it: the manifest lists it, and the digest leaves it out.
"""

import hashlib
import json
from enum import StrEnum
from typing import Self

from finetune_contract.base import Document, Sha256
from finetune_contract.paths import CARD_FILE


class StoredKind(StrEnum):
    """What a stored directory holds; also the folder of the store it lives in."""

    DATASET = "datasets"
    MODEL = "models"
    ARTIFACT = "artifacts"
    CHECKPOINT = "checkpoints"
    REPORT = "reports"
    """What one reading of a dataset's source found; the revision that it made may be an older one."""
    EXPORT = "exports"
    BATCH = "batches"
    """What a batch answered: output and error file."""


class FileEntry(Document):
    """One file of a stored directory."""

    path: str
    """Relative POSIX path; never absolute, never with `..`."""
    size: int
    sha256: str
    """64 hexadecimal digits."""


class Manifest(Document):
    """What a stored directory contains and where it came from."""

    version: int = 1
    kind: StoredKind
    digest: Sha256
    """Over `files` or, for a dataset revision, over its canonical rows."""
    files: tuple[FileEntry, ...]
    lineage: dict[str, str] = {}
    """Where it came from: repository, commit, dataset digest, base digest, run key, and so on."""

    @classmethod
    def of_files(cls, kind: StoredKind, files: tuple[FileEntry, ...], lineage: dict[str, str]) -> Self:
        """A manifest whose digest is over its files."""
        ordered = tuple(sorted(files, key=lambda entry: entry.path))
        return cls(kind=kind, digest=digest_of_files(ordered), files=ordered, lineage=lineage)


def digest_of_files(files: tuple[FileEntry, ...]) -> Sha256:
    """The digest of a directory's content: sha256 over its sorted (path, size, sha256) as canonical JSON.

    Without the model card: it says what a run took, which differs each time, and the same weights keep their name.
    """
    return digest_of_all_files(tuple(entry for entry in files if entry.path != CARD_FILE))


def digest_of_all_files(files: tuple[FileEntry, ...]) -> Sha256:
    """Like `digest_of_files`, over the model card, too: differs where any byte does."""
    rows = sorted((entry.path, entry.size, entry.sha256) for entry in files)
    return "sha256:" + hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
