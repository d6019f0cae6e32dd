"""The store: published directories by content, runs by key."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from finetune_contract.base import Sha256, StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_contract.paths import MANIFEST_FILE, OUTCOME_FILE
from finetune_contract.results import TrainingResult
from finetune_store.files import (
    age_of_tree,
    allow_group,
    entries_of,
    is_within,
    make_directory,
    remove_tree,
    sync,
    sync_tree,
    write_atomically,
    write_beside,
)
from finetune_store.manifests import read_manifest, verify_directory, write_manifest
from finetune_store.retention import register, use

WORK = ".work"
RUNS = "runs"
SOURCES = "sources"
BASELINES = "baselines"
MEASURED = "measured.json"
"""Folders of the store beside those of the StoredKinds."""

_LEFTOVER_SECONDS = 24 * 3600
"""Nothing in a workspace was written for this long: its pod is gone."""

_RUN_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]*")


class Store:
    """A claim that is mounted at `root`.

    Every method may raise OSError where the volume fails; the edge of a command makes it StorageFull or
    StorageUnavailable (`finetune_store.edge.failure_of`).
    """

    def __init__(self, root: Path, claim: str) -> None:
        """Take the mount and the claim's name.

        Raises:
            FineTuneError: StorageUnavailable when nothing is mounted there.
        """
        if not root.is_dir():
            raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{root}: claim {claim} is not mounted here")
        self.root = root
        self.claim = claim
        self.address = f"pvc://{claim}"
        """What references into this store begin with."""

    def register(self, namespace: str) -> None:
        """Leave a note that a namespace uses this store."""
        register(self.root, namespace)

    # --- published directories ---

    def path(self, ref: StoredReference) -> Path:
        """The directory of a reference in this pod; it need not exist.

        Raises:
            FineTuneError: InvalidPlan for another store or a path that leaves it.
        """
        prefix = f"{self.address}/"
        relative = PurePosixPath(ref.uri.removeprefix(prefix))
        if not ref.uri.startswith(prefix):
            raise FineTuneError(
                FailureReason.INVALID_PLAN, f"uri: {ref.uri} is not in {self.address}; give both the same spec.storage"
            )
        path = self.root / relative
        if relative.is_absolute() or ".." in relative.parts or not is_within(path, self.root) or path == self.root:
            raise FineTuneError(FailureReason.INVALID_PLAN, f"uri: {ref.uri} is not a directory of the store")
        return path

    def verify(self, ref: StoredReference) -> Path:
        """The directory of a reference, every file checked against its manifest: reads all of it.

        Raises:
            FineTuneError: StorageUnavailable or CheckpointCorrupt, naming the file.
        """
        use(self.root, self.path(ref))
        return self.verify_here(ref)

    def verify_here(self, ref: StoredReference) -> Path:
        """Like `verify`, of what is on this file system."""
        path = self.path(ref)
        manifest = verify_directory(path)
        if manifest.digest != ref.digest:
            raise FineTuneError(
                FailureReason.STORAGE_UNAVAILABLE, f"{path}: holds {manifest.digest}; {ref.digest} was asked for"
            )
        return path

    def without_weights(self, ref: StoredReference) -> Path:
        """A model's directory for those who read no weights: nothing is verified, and weights may be missing.

        Raises:
            FineTuneError: StorageUnavailable when it is not there.
        """
        path = self.path(ref)
        if not path.is_dir():
            raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{ref.uri}: is not in the store any more")
        return path

    def check(self, ref: StoredReference) -> Manifest:
        """Like `verify`, for those who do not read it afterwards: what it contains, and that it is whole."""
        return read_manifest(self.verify(ref))

    def reference(self, kind: StoredKind, digest: Sha256) -> StoredReference:
        """Where content of a kind is, or would be."""
        return StoredReference(digest=digest, uri=f"{self.address}/{kind.value}/{digest.removeprefix('sha256:')}")

    @contextmanager
    def workspace(self, kind: StoredKind) -> Iterator[Path]:
        """A directory on the store's own file system, for content on its way to `publish`; removed on exit."""
        work = make_directory(self.root / WORK)
        sweep(work)
        directory = Path(tempfile.mkdtemp(prefix=f"{kind.value}-", dir=work))
        allow_group(directory)
        try:
            yield directory
        finally:
            remove_tree(directory)

    def publish(
        self, kind: StoredKind, directory: Path, lineage: dict[str, str], digest: Sha256 | None = None
    ) -> StoredReference:
        """Move a finished directory to its place, once: content that is there already wins.

        Args:
            kind: What it holds.
            directory: Inside a `workspace`; gone afterwards unless the same content was there before.
            lineage: Where it came from.
            digest: Of a dataset's canonical rows; None: over the files.
        """
        manifest = sealed(kind, directory, lineage, digest)
        ref = self.reference(kind, manifest.digest)
        self.place(directory, ref)
        return ref

    def place(self, directory: Path, ref: StoredReference) -> None:
        """Move a sealed directory to its place on this file system, if the content is not there already."""
        target = self.path(ref)
        make_directory(target.parent)
        use(self.root, target)
        try:
            self.verify_here(ref)
        except FineTuneError:
            self._set_damaged_aside(target)
            self._rename(directory, target)

    def holds(self, ref: StoredReference) -> bool:
        """Whether the content is there and whole."""
        try:
            self.check(ref)
        except FineTuneError:
            return False
        return True

    def _set_damaged_aside(self, target: Path) -> None:
        """Free the place of a directory that does not verify: swept later, since a reader may still hold it open."""
        if target.exists():
            work = make_directory(self.root / WORK)
            target.rename(Path(tempfile.mkdtemp(prefix="damaged-", dir=work)) / target.name)

    def _rename(self, directory: Path, target: Path) -> None:
        try:
            directory.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            # Another pod published the same content between the check and the rename.
            verify_directory(target)
        sync(target.parent)

    # --- sources ---

    def pointer(self, source: str) -> Sha256 | None:
        """Which digest a source, named by 64 hexadecimal digits, had when it was staged; None if it never was."""
        try:
            return str(json.loads((self.root / SOURCES / f"{source}.json").read_text())["digest"])
        except FileNotFoundError:
            return None

    def point(self, source: str, digest: Sha256) -> None:
        """Say which digest a source has."""
        write_atomically(make_directory(self.root / SOURCES) / f"{source}.json", json.dumps({"digest": digest}))

    # --- runs ---

    def record(self, run_key: str, path: str, text: str) -> None:
        """Keep a document with a run (`attempts/1/result.json`)."""
        target = self.run_directory(run_key) / path
        make_directory(target.parent)
        write_atomically(target, text)

    def recorded(self, run_key: str, path: str) -> str | None:
        """A document that was kept with a run; None where there is none."""
        self._run_path(run_key)
        found = self.read(f"{RUNS}/{run_key}/{path}")
        return found.decode() if found is not None else None

    def read(self, path: str) -> bytes | None:
        """A small file by its path in the store; None where there is none.

        Raises:
            FineTuneError: InvalidPlan for a path that leaves the store.
        """
        file = self.root / path
        if ".." in PurePosixPath(path).parts or not is_within(file, self.root):
            raise FineTuneError(FailureReason.INVALID_PLAN, f"path: {path} is not in the store")
        use(self.root, file)
        return file.read_bytes() if file.is_file() else None

    def remember(self, key: str, text: str) -> None:
        """Keep what was measured of a baseline; collected when it has not been recalled for long."""
        write_atomically(make_directory(self.root / BASELINES / key) / MEASURED, text)

    def recall(self, key: str) -> str | None:
        """What was measured of a baseline; None where it was not."""
        directory = self.root / BASELINES / key
        use(self.root, directory)
        try:
            return (directory / MEASURED).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def run_directory(self, run_key: str) -> Path:
        """The directory of a run, made when it is not there: checkpoints/<podUID>/, attempts/<n>/, outcome.json."""
        path = self._run_path(run_key)
        use(self.root, path)
        return make_directory(path)

    def outcome(self, run_key: str) -> TrainingResult | None:
        """The run's success, if it has one whose artifact is still in the store.

        Raises:
            FineTuneError: ContractViolation when another release wrote a document this one cannot read.
        """
        path = self._run_path(run_key) / OUTCOME_FILE
        use(self.root, path.parent)
        try:
            result = TrainingResult.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{path}: {error.errors()[0]['msg']}") from error
        return result if self._has_artifact(result) else None

    def publish_outcome(self, result: TrainingResult) -> TrainingResult:
        """Say that a run has succeeded, unless that was said before; the one that holds is returned."""
        if result.failure is not None or result.artifact is None:
            raise ValueError("only a success with an artifact is an outcome")
        path = self.run_directory(result.run_key) / OUTCOME_FILE
        if path.exists() and self.outcome(result.run_key) is None:
            path.unlink(missing_ok=True)  # its artifact was deleted
        temporary = write_beside(path, result.to_json())
        try:
            os.link(temporary, path)  # fails where the name is taken; rename would replace the winner's
        except FileExistsError:
            return self.outcome(result.run_key) or result
        finally:
            temporary.unlink()
            sync(path.parent)
        return result

    def _has_artifact(self, result: TrainingResult) -> bool:
        if result.artifact is None:
            return False
        path = self.path(StoredReference(digest=result.artifact.digest, uri=result.artifact.uri))
        use(self.root, path)
        return (path / MANIFEST_FILE).is_file()

    def _run_path(self, run_key: str) -> Path:
        if not _RUN_KEY.fullmatch(run_key):
            raise FineTuneError(FailureReason.INVALID_PLAN, f"runKey: {run_key!r} is not a run key")
        return self.root / RUNS / run_key


def sealed(kind: StoredKind, directory: Path, lineage: dict[str, str], digest: Sha256 | None) -> Manifest:
    """Bring a finished directory to the disk, its manifest last."""
    manifest = Manifest.of_files(kind, entries_of(directory), lineage)
    if digest is not None:
        manifest = manifest.model_copy(update={"digest": digest})
    sync_tree(directory)
    write_manifest(directory, manifest)
    return manifest


def sweep(work: Path) -> None:
    """Remove what pods that were killed have left behind."""
    for leftover in work.iterdir():
        try:
            is_leftover = age_of_tree(leftover) > _LEFTOVER_SECONDS
        except FileNotFoundError:
            continue  # its owner is at work on it, or another pod sweeps too
        if is_leftover:
            remove_tree(leftover)
