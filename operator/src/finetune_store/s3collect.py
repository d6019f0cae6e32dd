"""Collecting a store in S3: the looks and the judgement of `collect`, by listings and the notes of `s3retention`."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.collection import CollectionPlan, prefixes_in
from finetune_contract.failure import FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.paths import MANIFEST_FILE, OUTCOME_FILE
from finetune_contract.results import TrainingResult
from finetune_store import s3retention
from finetune_store.collection import KINDS, LEDGER, Collection, Entry, is_ours
from finetune_store.s3 import Item
from finetune_store.s3store import S3Store
from finetune_store.store import RUNS, SOURCES

log = logging.getLogger(__name__)


class S3Collection(Collection):
    """One look at a store in S3."""

    def __init__(self, plan: CollectionPlan, store: S3Store, clock: Callable[[], float]) -> None:
        """Take what is in use, the store, and who says what time it is."""
        super().__init__(plan, store.root, clock)
        self._store = store
        self._bucket = store.bucket

    def _namespaces(self) -> set[str]:
        self._store.register(self._plan.namespace)
        return set(self._bucket.names(f"{s3retention.NAMESPACES}/"))

    def _read_ledger(self) -> bytes:
        found = self._bucket.get(LEDGER)
        return found.data if found else b""

    def _write_ledger(self, text: str) -> None:
        self._bucket.put(LEDGER, text.encode())

    def _bring_all_back(self) -> None:
        for entry in s3retention.all_aside(self._bucket):
            s3retention.settle(self._bucket, entry)

    def _entries(self) -> Iterator[Entry]:
        for kind in KINDS:
            for name in self._bucket.names(f"{kind}/"):
                if is_ours(name):
                    yield Entry(kind, name, Path(kind, name))

    def _named_by(self, entry: Entry) -> set[str]:
        if entry.kind == RUNS:
            outcome = self._bucket.get(f"{entry.id}/{OUTCOME_FILE}")
            return prefixes_in(outcome.data.decode(errors="replace")) if outcome else set()
        content = self._bucket.get(f"{entry.id}/{MANIFEST_FILE}")
        try:
            return prefixes_in(" ".join(self._store.parse(entry.id, content).lineage.values())) if content else set()
        except FineTuneError:
            return set()  # damaged

    def _remove(self, entry: Entry) -> int | None:
        if not self._is_unused(self._last_use(entry)):
            return None
        note = s3retention.set_aside(self._bucket, entry.id)
        if note is None:
            return None
        if not self._is_unused(self._last_use(entry)):
            s3retention.bring_back(self._bucket, entry.id, note)
            return None
        return s3retention.discard(self._bucket, entry.id) if s3retention.doom(self._bucket, entry.id, note) else None

    def _last_use(self, entry: Entry) -> float:
        # Uploading is using: what is not complete yet has no mark that is newer.
        written = max((item.modified.timestamp() for item in self._bucket.items(f"{entry.id}/")), default=0.0)
        return max(written, s3retention.last_use(self._bucket, entry.id))

    def _remove_checkpoints(self, entry: Entry) -> int | None:
        if entry.kind != RUNS:
            return None
        checkpoints: list[Item] = list(self._bucket.items(f"{entry.id}/checkpoints/"))
        if not checkpoints or not self._is_unused(max(item.modified.timestamp() for item in checkpoints)):
            return None
        if not self._has_succeeded(entry):
            return None
        # Manifests first, so that no checkpoint is half good.
        checkpoints.sort(key=lambda item: not item.key.endswith(f"/{MANIFEST_FILE}"))
        self._bucket.remove(item.key for item in checkpoints)
        size = sum(item.size for item in checkpoints)
        log.info("the checkpoints of run %s are deleted: %d bytes", entry.name, size)
        return size

    def _has_succeeded(self, run: Entry) -> bool:
        # Not by `S3Store.outcome`: a look is no use.
        outcome = self._bucket.get(f"{run.id}/{OUTCOME_FILE}")
        try:
            result = TrainingResult.model_validate_json(outcome.data) if outcome else None
        except ValidationError:
            return False
        if result is None or result.artifact is None:
            return False
        name = result.artifact.digest.removeprefix("sha256:")
        return self._bucket.modified(f"{StoredKind.ARTIFACT.value}/{name}/{MANIFEST_FILE}") is not None

    def _remove_pointers(self) -> None:
        for name in self._bucket.names(f"{SOURCES}/"):
            try:
                digest = self._store.pointer(name.removesuffix(".json"))
            except (ValueError, KeyError, TypeError):
                continue
            if digest and not any(self._is_there(kind, digest) for kind in (StoredKind.MODEL, StoredKind.EXPORT)):
                self._bucket.remove([f"{SOURCES}/{name}"])

    def _is_there(self, kind: StoredKind, digest: str) -> bool:
        key = f"{kind.value}/{digest.removeprefix('sha256:')}/{MANIFEST_FILE}"
        return self._bucket.modified(key) is not None

    def _sweep(self) -> None:
        """Nothing: uploads that broke off are part of their entries, and parts of large files expire in the bucket."""
