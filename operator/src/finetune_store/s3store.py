"""The store in S3: the same folders and manifests as on a claim, with a copy of what a pod uses on its own disk.

A directory's files are uploaded first, side by side, and its manifest last and only if there is none (`If-None-Match`):
with it the directory is complete. Who comes second adopts what the first has published. Readers download once, verify
every file against the manifest, and find it again under `root` as long as the pod lives.

Two pods may upload one directory at the same time. Where the digest is over all files, they write the same bytes. The
files of a dataset, whose digest is over its rows, and a model card, which is in no digest, may differ: such a directory
has its files in a folder named by their own digest.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from finetune_contract.base import Sha256, StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import FileEntry, Manifest, StoredKind, digest_of_all_files, digest_of_files
from finetune_contract.paths import MANIFEST_FILE, OUTCOME_FILE
from finetune_contract.results import TrainingResult
from finetune_contract.storage import S3Location
from finetune_store.disks import mark_as_cache
from finetune_store.files import make_directory, remove_tree, sha256_of
from finetune_store.manifests import verify_directory, write_manifest
from finetune_store.progress import in_units, progress
from finetune_store.s3 import AT_ONCE, PART_BYTES, Bucket, Content
from finetune_store.s3retention import NAMESPACES, use
from finetune_store.store import BASELINES, MEASURED, RUNS, SOURCES, WORK, Store, sealed

log = logging.getLogger(__name__)

_TRIES = 3
"""Downloads of a file whose content is not what the manifest says; races that are decided anew."""


class DamagedError(FineTuneError):
    """What is in the store is not what its manifest says; nothing is wrong with the server."""


class S3Store(Store):
    """A store under an S3 prefix; `root` is a directory for copies, which is lost with the pod.

    Every method may raise FineTuneError with StorageUnavailable, StorageAccessDenied or StorageFull.
    """

    def __init__(self, root: Path, location: S3Location, bucket: Bucket | None = None) -> None:
        """Take the directory for copies, and where the store is."""
        super().__init__(root, location.uri)
        mark_as_cache(root)
        self.bucket = bucket or Bucket(location)
        self.address = self.bucket.address

    def register(self, namespace: str) -> None:
        """Leave a note that a namespace uses this store."""
        self.bucket.put(f"{NAMESPACES}/{namespace}", b"")

    # --- published directories ---

    def verify(self, ref: StoredReference) -> Path:
        """The pod's own copy of a directory, made now if there is none; every file is checked.

        Raises:
            FineTuneError: StorageUnavailable, naming the object.
        """
        path = self.path(ref)
        self._use(self._key(ref))
        try:
            return self.verify_here(ref)
        except FineTuneError:
            remove_tree(path)
        self.copy(self._key(ref), path, self._manifest(ref))
        return path

    def without_weights(self, ref: StoredReference) -> Path:
        """Copies of a model's files but its weights, apart from the directory that `verify` makes."""
        key = self._key(ref)
        self._use(key)
        manifest = self._manifest(ref)
        folder, target = _folder(key, manifest), make_directory(self.root / WORK / f"outline-{self.path(ref).name}")
        wanted = [entry for entry in manifest.files if not entry.path.endswith(".safetensors")]
        _side_by_side(lambda entry: self._fetch(folder, entry, target, manifest.kind), wanted)
        return target

    def check(self, ref: StoredReference) -> Manifest:
        """What a directory contains, and that its files are there with the right sizes; copies nothing."""
        self._use(self._key(ref))
        manifest = self._manifest(ref)
        if fault := self._fault_in(self._key(ref), manifest):
            raise DamagedError(_reason_for(manifest.kind), fault)
        return manifest

    def publish(
        self, kind: StoredKind, directory: Path, lineage: dict[str, str], digest: Sha256 | None = None
    ) -> StoredReference:
        """Upload a finished directory, once: content that is there already wins."""
        manifest = sealed(kind, directory, lineage, digest)
        ref = self.reference(kind, manifest.digest)
        self._use(self._key(ref))
        if self._push(self._key(ref), directory, manifest).files == manifest.files:
            self.place(directory, ref)  # it need not be downloaded again
        return ref

    def _push(self, key: str, directory: Path, manifest: Manifest) -> Manifest:
        """Upload a sealed directory unless its content is there; answers the manifest that holds."""
        for _ in range(_TRIES):
            there = self.bucket.get(f"{key}/{MANIFEST_FILE}")
            winner = self._whole(key, manifest.digest, there)
            if winner is not None:
                return winner
            self.upload(key, directory, manifest, replaced=there)
        return self._manifest(StoredReference(digest=manifest.digest, uri=self.bucket.uri(key)))

    def upload(self, key: str, directory: Path, manifest: Manifest, replaced: Content | None = None) -> None:
        """Upload a directory's files, then its manifest: only where there is none, or the damaged one that was read."""
        total = sum(entry.size for entry in manifest.files)
        folder = _folder(key, manifest)
        began = time.monotonic()

        def send(entry: FileEntry) -> None:
            # What is large, and a pod that was killed had uploaded, is not sent again.
            is_large = entry.size >= PART_BYTES
            if not is_large or not self.bucket.holds(folder + entry.path, entry.size, entry.sha256):
                self.bucket.upload(folder + entry.path, directory / entry.path, entry.sha256)

        _side_by_side(send, manifest.files)
        document = manifest.to_json().encode()
        if replaced is None:
            self.bucket.put(f"{key}/{MANIFEST_FILE}", document, if_absent=True)
        else:
            self.bucket.put(f"{key}/{MANIFEST_FILE}", document, if_match=replaced.etag)
        log.info("uploaded %s to %s in %.1f s", in_units(total), self.bucket.uri(key), time.monotonic() - began)

    def copy(self, key: str, target: Path, manifest: Manifest) -> None:
        """Download a directory to its place in this pod, and verify every file.

        Raises:
            FineTuneError: DamagedError, naming the object.
        """
        folder = _folder(key, manifest)
        work = Path(tempfile.mkdtemp(prefix="copy-", dir=make_directory(self.root / WORK)))
        try:
            with progress("copied", work, sum(entry.size for entry in manifest.files)):
                _side_by_side(lambda entry: self._fetch(folder, entry, work, manifest.kind), manifest.files)
            write_manifest(work, manifest)
            verify_directory(work)
            make_directory(target.parent)
            remove_tree(target)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _fetch(self, folder: str, entry: FileEntry, directory: Path, kind: StoredKind) -> None:
        """One file, again where it is not what the manifest says."""
        key, reason = folder + entry.path, _reason_for(kind)
        relative = PurePosixPath(entry.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise DamagedError(reason, f"{self.bucket.uri(key)}: leaves its directory")
        target = directory / relative
        make_directory(target.parent)
        for _ in range(_TRIES):
            if not self.bucket.download(key, target):
                raise DamagedError(reason, f"{self.bucket.uri(key)}: is missing")
            found = sha256_of(target)
            if found == entry.sha256:
                return
        raise DamagedError(reason, f"{self.bucket.uri(key)}: has sha256 {found}; the manifest says {entry.sha256}")

    def _manifest(self, ref: StoredReference) -> Manifest:
        key = self._key(ref)
        there = self.bucket.get(f"{key}/{MANIFEST_FILE}")
        if there is None:
            raise DamagedError(FailureReason.STORAGE_UNAVAILABLE, f"{ref.uri}: is not in the store, or incomplete")
        manifest = self.parse(key, there)
        if manifest.digest != ref.digest:
            message = f"{ref.uri}: holds {manifest.digest}; {ref.digest} was asked for"
            raise DamagedError(FailureReason.STORAGE_UNAVAILABLE, message)
        return manifest

    def parse(self, key: str, content: Content) -> Manifest:
        """The manifest of a directory.

        Raises:
            FineTuneError: DamagedError where it is torn, or its digest is not that of its files.
        """
        where = self.bucket.uri(f"{key}/{MANIFEST_FILE}")
        try:
            manifest = Manifest.model_validate_json(content.data)
        except ValidationError as error:
            message = f"{where}: is damaged: {error.errors()[0]['msg']}"
            raise DamagedError(FailureReason.CHECKSUM_MISMATCH, message) from error
        if manifest.kind is not StoredKind.DATASET and manifest.digest != digest_of_files(manifest.files):
            raise DamagedError(_reason_for(manifest.kind), f"{where}: its digest is not that of its files")
        return manifest

    def _whole(self, key: str, digest: Sha256, content: Content | None) -> Manifest | None:
        """The manifest of content that is there already; None where it is not, or is damaged."""
        if content is None:
            return None
        try:
            manifest = self.parse(key, content)
        except DamagedError as error:
            log.warning("%s; it is uploaded again", error)
            return None
        fault = self._fault_in(key, manifest)
        if fault:
            log.warning("%s; it is uploaded again", fault)
        return manifest if fault is None and manifest.digest == digest else None

    def _fault_in(self, key: str, manifest: Manifest) -> str | None:
        """What a listing shows to be wrong with a directory."""
        folder = _folder(key, manifest)
        sizes = {item.key: item.size for item in self.bucket.items(f"{key}/")}
        for entry in manifest.files:
            size = sizes.get(folder + entry.path)
            if size is None:
                return f"{self.bucket.uri(folder + entry.path)}: is missing"
            if size != entry.size:
                return f"{self.bucket.uri(folder + entry.path)}: has {size} bytes; the manifest says {entry.size}"
        return None

    def _key(self, ref: StoredReference) -> str:
        return self.path(ref).relative_to(self.root).as_posix()

    def _use(self, key: str) -> None:
        use(self.bucket, "/".join(key.split("/")[:2]))

    # --- sources ---

    def pointer(self, source: str) -> Sha256 | None:
        """Which digest a source had when it was staged; None if it never was."""
        there = self.bucket.get(f"{SOURCES}/{source}.json")
        return str(json.loads(there.data)["digest"]) if there else None

    def point(self, source: str, digest: Sha256) -> None:
        """Say which digest a source has."""
        self.bucket.put(f"{SOURCES}/{source}.json", json.dumps({"digest": digest}).encode())

    # --- runs ---

    def run_directory(self, run_key: str) -> Path:
        """The directory for this pod's part of a run; what is to stay is uploaded from there."""
        path = self._run_path(run_key)
        self._use(f"{RUNS}/{run_key}")
        return make_directory(path)

    def record(self, run_key: str, path: str, text: str) -> None:
        """Keep a document with a run (`attempts/1/result.json`)."""
        self._run_path(run_key)
        self.bucket.put(f"{RUNS}/{run_key}/{path}", text.encode())

    def recorded(self, run_key: str, path: str) -> str | None:
        """A document that was kept with a run; None where there is none."""
        self._run_path(run_key)
        found = self.read(f"{RUNS}/{run_key}/{path}")
        return found.decode() if found is not None else None

    def read(self, path: str) -> bytes | None:
        """A small object by its path in the store; None where there is none."""
        found = self.bucket.get(path)
        return found.data if found else None

    def remember(self, key: str, text: str) -> None:
        """Keep what was measured of a baseline; collected when it has not been recalled for long."""
        self.bucket.put(f"{BASELINES}/{key}/{MEASURED}", text.encode())

    def recall(self, key: str) -> str | None:
        """What was measured of a baseline; None where it was not."""
        self._use(f"{BASELINES}/{key}")
        found = self.bucket.get(f"{BASELINES}/{key}/{MEASURED}")
        return found.data.decode() if found else None

    def outcome(self, run_key: str) -> TrainingResult | None:
        """The run's success, if it has one whose artifact is still in the store."""
        self._run_path(run_key)
        self._use(f"{RUNS}/{run_key}")
        found = self.bucket.get(f"{RUNS}/{run_key}/{OUTCOME_FILE}")
        return self._standing(run_key, found) if found else None

    def publish_outcome(self, result: TrainingResult) -> TrainingResult:
        """Say that a run has succeeded, unless that was said before; the one that holds is returned."""
        if result.failure is not None or result.artifact is None:
            raise ValueError("only a success with an artifact is an outcome")
        key, document = f"{RUNS}/{result.run_key}/{OUTCOME_FILE}", result.to_json().encode()
        self._use(f"{RUNS}/{result.run_key}")
        for _ in range(_TRIES):
            if self.bucket.put(key, document, if_absent=True):
                return result
            there = self.bucket.get(key)
            winner = self._standing(result.run_key, there) if there else None
            if winner:
                return winner
            if there and self.bucket.put(key, document, if_match=there.etag):  # its artifact was deleted
                return result
        raise FineTuneError(FailureReason.STORAGE_UNAVAILABLE, f"{self.bucket.uri(key)}: changes all the time")

    def _standing(self, run_key: str, content: Content) -> TrainingResult | None:
        """An outcome whose artifact is there."""
        try:
            result = TrainingResult.model_validate_json(content.data)
        except ValidationError as error:
            where = self.bucket.uri(f"{RUNS}/{run_key}/{OUTCOME_FILE}")
            raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{where}: {error.errors()[0]['msg']}") from error
        if result.artifact is None:
            return None
        key = self._key(StoredReference(digest=result.artifact.digest, uri=result.artifact.uri))
        self._use(key)
        return result if self.bucket.modified(f"{key}/{MANIFEST_FILE}") else None


def _folder(key: str, manifest: Manifest) -> str:
    """Where a directory's files are, with a `/` at the end."""
    own = digest_of_all_files(manifest.files)
    return f"{key}/" if manifest.digest == own else f"{key}/{own.removeprefix('sha256:')[:16]}/"


def _reason_for(kind: StoredKind) -> FailureReason:
    is_checkpoint = kind is StoredKind.CHECKPOINT
    return FailureReason.CHECKPOINT_CORRUPT if is_checkpoint else FailureReason.CHECKSUM_MISMATCH


def _side_by_side(act: Callable[[FileEntry], None], entries: Iterable[FileEntry]) -> None:
    """Do something with each file, some at a time; the first error ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pending = [pool.submit(act, entry) for entry in entries]
        try:
            for each in pending:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
