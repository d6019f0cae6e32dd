"""Delete what nothing has referred to for some time.

Two passes: a look marks what nothing refers to, and a later one deletes what has been marked in every look for the
minimum age and was not used in that time either. So a reference that comes while nobody looks is safe:

- one that was copied from another (a job takes a dataset's revision) had its source in an earlier look, which took the
  mark away;
- one that a pod has found or made was used just before (`finetune_store.retention`), and is kept for its age.

A plan that is too old decides nothing, and marks from before a long silence count no more.
"""

import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from finetune_contract.base import Document
from finetune_contract.collection import CollectionPlan, CollectionResult, prefixes_in
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_contract.paths import MANIFEST_FILE, OUTCOME_FILE
from finetune_contract.results import TrainingResult
from finetune_store import retention
from finetune_store.files import last_write_below, make_directory, remove_tree, write_atomically
from finetune_store.store import BASELINES, RUNS, SOURCES, WORK, sweep

log = logging.getLogger(__name__)

LEDGER = "collection.json"
KINDS = (
    RUNS,
    StoredKind.BATCH.value,
    StoredKind.EXPORT.value,
    StoredKind.ARTIFACT.value,
    StoredKind.MODEL.value,
    StoredKind.DATASET.value,
    StoredKind.REPORT.value,
    BASELINES,
)
_HEX = frozenset("0123456789abcdef")
_NAME_LENGTH = 64


class Ledger(Document):
    """What the last look found, kept in the store."""

    version: Literal[1] = 1
    as_of: AwareDatetime
    unreferenced_since: dict[str, AwareDatetime] = {}
    """Entry -> the first look of an unbroken row in which nothing referred to it."""


@dataclass(frozen=True)
class Entry:
    """Something that is kept or deleted as a whole."""

    kind: str
    name: str
    path: Path

    @property
    def id(self) -> str:
        """Its name in the ledger."""
        return f"{self.kind}/{self.name}"

    def last_use(self, path: Path) -> float:
        """When it was last used or, a run, written to; `path` is where it is now."""
        used = retention.last_use(path)
        return max(used, last_write_below(path)) if self.kind == RUNS else used


class Collection:
    """One look at a store on a volume; what is particular to volumes is in methods that S3 does otherwise."""

    def __init__(self, plan: CollectionPlan, root: Path, clock: Callable[[], float]) -> None:
        """Take what is in use, the mount, and who says what time it is."""
        self._plan = plan
        self._root = root
        self._clock = clock
        self._minimum_age = timedelta(seconds=plan.minimum_age_seconds)

    def run(self) -> CollectionResult:
        """Mark, then delete what is due."""
        self._must_be_ours()
        ledger = self._ledger()
        self._must_be_current(ledger)
        self._bring_all_back()
        entries = list(self._entries())
        in_use = self._in_use(entries)
        marks = self._marks(ledger, [entry for entry in entries if entry.id not in in_use])
        removed = {entry.id: size for entry in entries if (size := self._remove_if_due(entry, marks)) is not None}
        self._write({name: since for name, since in marks.items() if name not in removed})
        spent = [size for entry in entries if (size := self._remove_checkpoints(entry)) is not None]
        self._remove_pointers()
        self._sweep()
        return CollectionResult(
            in_use=len(in_use),
            waiting=len(marks) - len(removed),
            removed=len(removed),
            checkpoints_removed=len(spent),
            bytes=sum(removed.values()) + sum(spent),
        )

    # --- may it? ---

    def _must_be_ours(self) -> None:
        others = sorted(self._namespaces() - {self._plan.namespace})
        if others:
            where = f"claim {self._plan.claim}" if self._plan.s3 is None else self._plan.s3.uri
            raise FineTuneError(
                FailureReason.STORAGE_UNAVAILABLE,
                f"{where}: the namespaces {', '.join(others[:5])} keep things in the same place, so "
                "nothing is deleted; give each namespace a place of its own, or switch retention off",
            )

    def _namespaces(self) -> set[str]:
        """Who uses the store, the plan's namespace among them."""
        retention.register(self._root, self._plan.namespace)
        return retention.namespaces(self._root)

    def _must_be_current(self, ledger: Ledger) -> None:
        if not self._is_current(self._clock()):
            raise FineTuneError(
                FailureReason.INVALID_PLAN,
                f"asOf: what is in use was looked up at {self._plan.as_of}, too long ago to delete by it",
            )
        if self._plan.as_of < ledger.as_of:
            raise FineTuneError(FailureReason.INVALID_PLAN, f"asOf: a later look, at {ledger.as_of}, was acted on")

    def _is_current(self, now: float) -> bool:
        """What has come into use since the look was used, by a pod, less than the minimum age ago."""
        return now - self._plan.as_of.timestamp() <= self._plan.minimum_age_seconds / 2

    # --- what is there, and what of it is in use ---

    def _bring_all_back(self) -> None:
        """Undo what a collector that died has begun; it is judged anew."""
        for aside, place in retention.all_aside(self._root):
            if not retention.bring_back(self._root, place) and place.exists():
                self._discard(aside)  # published again meanwhile

    def _entries(self) -> Iterator[Entry]:
        for kind in KINDS:
            folder = self._root / kind
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if is_ours(path.name):
                    yield Entry(kind, path.name, path)

    def _in_use(self, entries: list[Entry]) -> set[str]:
        """What the plan names, and what that was made from."""
        by_prefix = defaultdict(list)
        for entry in entries:
            by_prefix[next(iter(prefixes_in(entry.name)))].append(entry)
        seen = set(self._plan.live)
        found: set[str] = set()
        queue = [entry for prefix in seen for entry in by_prefix.get(prefix, ())]
        while queue:
            entry = queue.pop()
            found.add(entry.id)
            more = self._named_by(entry) - seen
            seen |= more
            queue += [other for prefix in more for other in by_prefix.get(prefix, ())]
        return found

    # --- marks ---

    def _ledger(self) -> Ledger:
        try:
            ledger = Ledger.model_validate_json(self._read_ledger())
        except (FileNotFoundError, ValidationError):
            return Ledger(as_of=datetime.fromtimestamp(0, UTC))
        if self._plan.as_of - ledger.as_of > self._minimum_age:
            # Nobody looked for so long that what is marked may have been in use meanwhile.
            return Ledger(as_of=ledger.as_of)
        return ledger

    def _marks(self, ledger: Ledger, unreferenced: list[Entry]) -> dict[str, datetime]:
        """Entry -> since when nothing refers to it. Written first: marks must not be lost with what comes after."""
        marks = {entry.id: ledger.unreferenced_since.get(entry.id, self._plan.as_of) for entry in unreferenced}
        self._write(marks)
        return marks

    def _write(self, marks: dict[str, datetime]) -> None:
        self._write_ledger(Ledger(as_of=self._plan.as_of, unreferenced_since=marks).to_json())

    def _read_ledger(self) -> bytes:
        return (self._root / LEDGER).read_bytes()

    def _write_ledger(self, text: str) -> None:
        write_atomically(self._root / LEDGER, text)

    # --- deleting ---

    def _remove_if_due(self, entry: Entry, marks: dict[str, datetime]) -> int | None:
        """Delete an entry that has been marked for long enough; answers its bytes, or None if it stays."""
        since = marks.get(entry.id)
        if since is None or self._plan.as_of - since < self._minimum_age:
            return None
        size = self._remove(entry)
        if size is not None:
            log.info("%s is deleted: %d bytes, not referred to since %s", entry.id, size, since.isoformat())
        return size

    def _remove(self, entry: Entry) -> int | None:
        """Delete an entry unless it has been used; answers its bytes, or None if it stays."""
        try:
            if not self._is_unused(entry.last_use(entry.path)):
                return None
            aside = retention.set_aside(self._root, entry.path)
            if not self._is_unused(entry.last_use(aside)):
                retention.bring_back(self._root, entry.path)
                return None
            # From here on nobody can bring it back; a user who did so before has made this fail.
            return self._discard(aside)
        except FileNotFoundError:
            return None

    def _is_unused(self, used: float) -> bool:
        """Whether something that was last used then may go now."""
        now = self._clock()
        # Asked each time: a pod may have stood still for hours between two lines.
        return now - used >= self._plan.minimum_age_seconds and self._is_current(now)

    def _remove_checkpoints(self, entry: Entry) -> int | None:
        """A run that has succeeded is never resumed: its checkpoints go once nobody has written to them for the age."""
        checkpoints = entry.path / "checkpoints"
        if entry.kind != RUNS or not checkpoints.is_dir() or not self._has_succeeded(entry):
            return None
        try:
            if self._clock() - last_write_below(checkpoints) < self._plan.minimum_age_seconds:
                return None
            size = self._discard(checkpoints)
        except FileNotFoundError:  # a trainer that overlapped the one that succeeded is pruning its own
            return None
        log.info("the checkpoints of run %s are deleted: %d bytes", entry.name, size)
        return size

    def _has_succeeded(self, run: Entry) -> bool:
        try:
            result = TrainingResult.model_validate_json((run.path / OUTCOME_FILE).read_bytes())
        except (OSError, ValidationError):
            return False
        if result.artifact is None:
            return False
        name = result.artifact.digest.removeprefix("sha256:")
        return (self._root / StoredKind.ARTIFACT.value / name / MANIFEST_FILE).is_file()

    def _remove_pointers(self) -> None:
        """Forget which digest a source, or the key of an export, had where that directory is gone."""
        folder = self._root / SOURCES
        for pointer in folder.glob("*.json") if folder.is_dir() else ():
            try:
                digest = str(json.loads(pointer.read_text())["digest"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            name = digest.removeprefix("sha256:")
            if not any((self._root / kind.value / name).is_dir() for kind in (StoredKind.MODEL, StoredKind.EXPORT)):
                pointer.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what pods that were killed have left."""
        sweep(make_directory(self._root / WORK))

    def _named_by(self, entry: Entry) -> set[str]:
        """What an entry was made from, or has made: a run's artifact, an artifact's base and dataset."""
        try:
            if entry.kind == RUNS:
                return prefixes_in((entry.path / OUTCOME_FILE).read_text())
            manifest = Manifest.model_validate_json((entry.path / MANIFEST_FILE).read_bytes())
        except (FileNotFoundError, UnicodeDecodeError, ValidationError):
            return set()
        return prefixes_in(json.dumps(manifest.lineage))

    def _discard(self, path: Path) -> int:
        """Move a directory out of everybody's sight, then delete it; answers its bytes."""
        doomed = Path(tempfile.mkdtemp(prefix="collected-", dir=make_directory(self._root / WORK)))
        try:
            path.rename(doomed / path.name)
            return _bytes_below(doomed)
        finally:
            remove_tree(doomed)


def is_ours(name: str) -> bool:
    """Whether an entry has a name like those we give; what has not is not ours."""
    return len(name) == _NAME_LENGTH and set(name) <= _HEX


def _bytes_below(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
