"""Checkpoints of one run in S3: saved on the pod's own disk, uploaded while training goes on.

A save costs training what it costs on a local disk. One checkpoint is uploaded at a time and at most one waits; a save
that comes while one waits stands still until there is room, so that a slow server can neither fill the disk nor leave
the best checkpoint behind.
"""

import logging
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import MANIFEST_FILE
from finetune_store.checkpoints import Checkpoints, step_of
from finetune_store.manifests import read_manifest, verify_directory
from finetune_store.s3 import Item
from finetune_store.s3store import DamagedError, S3Store
from finetune_store.store import RUNS

log = logging.getLogger(__name__)

_LONG_AGO = datetime.fromtimestamp(0, UTC)
_KEY = re.compile(r"([^/]+)/checkpoint-(\d+)/.+")
_ABANDONED_SECONDS = 3600
"""Another pod's checkpoint without a manifest that nothing was written to for this long: that pod is gone."""


@dataclass
class _Stored:
    """What S3 has of one checkpoint."""

    pod: str
    step: int
    keys: list[str] = field(default_factory=list)
    is_sealed: bool = False
    written: datetime = _LONG_AGO

    def add(self, item: Item) -> None:
        self.keys.append(item.key)
        self.is_sealed = self.is_sealed or item.key.endswith(f"/checkpoint-{self.step}/{MANIFEST_FILE}")
        self.written = max(self.written, item.modified)

    def removal_order(self) -> list[str]:
        """Its manifest first, so that it is never half good."""
        return sorted(self.keys, key=lambda key: not key.endswith(f"/{MANIFEST_FILE}"))


class S3Checkpoints(Checkpoints):
    """The checkpoints of a run whose store is in S3, as one pod incarnation sees them."""

    def __init__(self, store: S3Store, run_key: str, pod_uid: str, keep: int) -> None:
        """Take the run, this pod's uid, and how many sealed checkpoints are kept (at least one)."""
        super().__init__(store, run_key, pod_uid, keep)
        self._store = store
        self._folder = f"{RUNS}/{run_key}/checkpoints/"
        self._pod = pod_uid
        self._room = threading.Condition()
        self._waiting: deque[Path] = deque()
        self._uploading: Path | None = None
        self._error: FineTuneError | OSError | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    # --- upload ---

    def settle(self) -> None:
        """Wait until every sealed checkpoint is in the store.

        Raises:
            FineTuneError: What an upload has failed for.
        """
        with self._room:
            self._room.wait_for(lambda: self._error or not (self._waiting or self._uploading))
            self._raise_error()

    def close(self) -> None:
        """Forget what waits: the run has its outcome, which needs no checkpoint."""
        with self._room:
            self._closed = True
            self._waiting.clear()
            self._room.notify_all()

    def _keep_for_others(self, path: Path, step: int) -> None:  # noqa: ARG002
        with self._room:
            self._room.wait_for(lambda: self._error or not self._waiting)
            self._raise_error()
            self._waiting.append(path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._upload_all, name="checkpoints", daemon=True)
                self._thread.start()
            self._room.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _upload_all(self) -> None:
        while True:
            with self._room:
                self._room.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
                path = self._uploading = self._waiting.popleft()
                self._room.notify_all()
            try:
                self._upload(path)
            except (FineTuneError, OSError) as error:
                log.warning("checkpoint %s could not be uploaded: %s", path.name, error)
                with self._room:
                    self._error = error
            except BaseException as error:
                with self._room:
                    self._error = OSError(f"checkpoint {path.name} could not be uploaded: {error!r}")
                raise
            finally:
                with self._room:
                    self._uploading = None
                    self._room.notify_all()

    def _upload(self, path: Path) -> None:
        began = time.monotonic()
        key = f"{self._folder}{self._pod}/{path.name}"
        self._store.upload(key, path, read_manifest(path))
        log.info("step %d: checkpoint is in the store after %.1f s", step_of(path), time.monotonic() - began)
        self.on_stored(step_of(path))
        try:
            self._prune_stored(step_of(path))
        except FineTuneError as error:
            log.warning("older checkpoints could not be removed: %s", error)

    def _is_busy(self, path: Path) -> bool:
        with self._room:
            return path == self._uploading or path in self._waiting

    # --- what is there ---

    def newest(self) -> tuple[int, Path] | None:
        """Step and directory of the newest checkpoint of any pod that verifies, brought here if it is not."""
        return self._first(None)

    def at(self, step: int) -> Path | None:
        """The checkpoint of a step, of any pod, if it verifies."""
        found = self._first(step)
        return found[1] if found else None

    def on_this_disk(self, pod: str, step: int) -> Path:
        """Copied to here where the rank that found it has another disk."""
        path = super().on_this_disk(pod, step)
        if not (path / MANIFEST_FILE).is_file() and not self._brought(path, f"{self._folder}{pod}/{path.name}"):
            raise FineTuneError(
                FailureReason.CHECKPOINT_CORRUPT,
                f"{self._store.bucket.uri(self._folder)}{pod}/{path.name}: rank 0 goes on from it, but it cannot be "
                "read here: it is damaged, or was removed in the meantime",
            )
        return path

    def _first(self, step: int | None) -> tuple[int, Path] | None:
        stored = {(each.step, each.pod) for each in self._stored() if each.is_sealed}
        here = {(step_of(path), path.parent.name) for path in self.sealed()}
        for candidate, pod in sorted(stored | here, reverse=True):
            if step not in (None, candidate):
                continue
            path = self.all / pod / f"checkpoint-{candidate}"
            if (candidate, pod) in here and self._verifies(path):
                return candidate, path
            if (candidate, pod) in stored and self._brought(path, f"{self._folder}{pod}/{path.name}"):
                return candidate, path
        return None

    def _verifies(self, path: Path) -> bool:
        try:
            verify_directory(path)
        except (FineTuneError, FileNotFoundError) as error:
            log.warning("checkpoint %s is passed over: %s", path, error)
            return False
        return True

    def _brought(self, path: Path, key: str) -> bool:
        """Whether a checkpoint could be copied; only one that is damaged is passed over, not a server that is."""
        try:
            content = self._store.bucket.get(f"{key}/{MANIFEST_FILE}")
            if content is None:
                return False  # pruned by a pod that still runs
            self._store.copy(key, path, self._store.parse(key, content))
        except DamagedError as error:
            log.warning("checkpoint %s is passed over: %s", self._store.bucket.uri(key), error)
            return False
        return True

    def _stored(self) -> list[_Stored]:
        found: dict[tuple[str, int], _Stored] = {}
        for item in self._store.bucket.items(self._folder):
            name = _KEY.fullmatch(item.key.removeprefix(self._folder))
            if name:
                pod, step = name[1], int(name[2])
                found.setdefault((pod, step), _Stored(pod, step)).add(item)
        return sorted(found.values(), key=lambda each: (each.step, each.pod), reverse=True)

    def _prune_stored(self, just_stored: int) -> None:
        stored = self._stored()
        sealed = [each for each in stored if each.is_sealed]
        for each in sealed[self.keep :]:
            is_just_stored = (each.pod, each.step) == (self._pod, just_stored)
            if not is_just_stored and each.step != self.protected:
                self._store.bucket.remove(each.removal_order())
        now = datetime.now(UTC)
        for each in stored:
            is_old = (now - each.written).total_seconds() > _ABANDONED_SECONDS
            if not each.is_sealed and (each.step < just_stored if each.pod == self._pod else is_old):
                self._store.bucket.remove(each.removal_order())
