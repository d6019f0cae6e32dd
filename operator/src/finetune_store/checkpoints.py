"""Checkpoints of one run: sealed by their manifest, found again by any later pod."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from finetune_contract.failure import FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_contract.paths import MANIFEST_FILE
from finetune_store.files import age_of_tree, entries_of, make_directory, remove_tree, sync, sync_tree
from finetune_store.manifests import verify_directory, write_manifest
from finetune_store.store import Store

log = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
_ABANDONED_SECONDS = 3600
"""Another pod's unsealed checkpoint that nothing was written to for this long will not be sealed any more."""


class Checkpoints:
    """The checkpoints of a run, as one pod incarnation sees them.

    Two trainers of one run may overlap for seconds, so each writes to its own directory and reads from all.
    """

    def __init__(self, store: Store, run_key: str, pod_uid: str, keep: int) -> None:
        """Take the run, this pod's uid, and how many sealed checkpoints are kept (at least one)."""
        self.all = make_directory(store.run_directory(run_key) / "checkpoints")
        """Every pod's directory of this run."""
        self.lineage = {"runKey": run_key, "podUID": pod_uid}
        self.keep = max(keep, 1)
        self.directory = make_directory(self.all / pod_uid)
        """Where this pod writes `checkpoint-<step>`."""
        self.protected: int | None = None
        """A step whose checkpoint is kept however many newer ones there are."""
        self.on_stored: Callable[[int], None] = lambda _step: None
        """Told the step of each checkpoint that any other pod can go on from."""

    def seal(self, path: Path, step: int) -> None:
        """Make a finished checkpoint count: its files to the volume, its manifest last; then remove older ones.

        Nothing may be written to `path` afterwards: it would no longer verify.
        """
        if path != self.directory / f"checkpoint-{step}":
            raise ValueError(f"{path} is not {self.directory}/checkpoint-{step}")
        (path / MANIFEST_FILE).unlink(missing_ok=True)
        sync_tree(path)
        lineage = {**self.lineage, "step": str(step)}
        write_manifest(path, Manifest.of_files(StoredKind.CHECKPOINT, entries_of(path), lineage))
        sync(path.parent)
        self._prune(path)
        self._keep_for_others(path, step)

    def settle(self) -> None:
        """Wait until every sealed checkpoint is in the store."""

    def close(self) -> None:
        """Stop bringing checkpoints into the store: they are not needed any more."""

    def _keep_for_others(self, path: Path, step: int) -> None:  # noqa: ARG002 - for stores that are not this directory
        self.on_stored(step)

    def newest(self) -> tuple[int, Path] | None:
        """Step and directory of the newest checkpoint of any pod that verifies; reads all of it."""
        return self._verified(self.sealed())

    def at(self, step: int) -> Path | None:
        """The checkpoint of a step, of any pod, if it verifies."""
        found = self._verified([path for path in self.sealed() if step_of(path) == step])
        return found[1] if found else None

    def on_this_disk(self, pod: str, step: int) -> Path:
        """The directory of a checkpoint that another rank has found to be the newest.

        Raises:
            FineTuneError: CheckpointCorrupt when it cannot be had any more.
        """
        return self.all / pod / f"checkpoint-{step}"

    def _verified(self, candidates: list[Path]) -> tuple[int, Path] | None:
        for path in candidates:
            try:
                verify_directory(path)
            except (FineTuneError, FileNotFoundError) as error:  # torn, or pruned by a pod that still runs
                log.warning("checkpoint %s is passed over: %s", path, error)
            else:
                return step_of(path), path
        return None

    def sealed(self) -> list[Path]:
        """Checkpoints that have a manifest, of all pods, newest first."""
        found = [path for path in self._written() if (path / MANIFEST_FILE).is_file()]
        # Two pods may have reached one step: either will do, but every reader takes the same.
        return sorted(found, key=lambda path: (step_of(path), path.parent.name), reverse=True)

    def _written(self) -> list[Path]:
        return [path for path in self.all.glob("*/checkpoint-*") if _NAME.fullmatch(path.name)]

    def _prune(self, just_sealed: Path) -> None:
        sealed = self.sealed()
        for path in sealed[self.keep :]:
            # Even where a pod that overlaps is ahead, the one this pod has just made is known to be good.
            if path != just_sealed and step_of(path) != self.protected and not self._is_busy(path):
                remove_tree(path)
        for path in set(self._written()) - set(sealed):
            if self._is_abandoned(path, step_of(just_sealed)):
                remove_tree(path)

    def _is_busy(self, path: Path) -> bool:  # noqa: ARG002
        """Whether a sealed checkpoint is still being read from."""
        return False

    def _is_abandoned(self, unsealed: Path, step: int) -> bool:
        if unsealed.parent == self.directory:
            return step_of(unsealed) < step
        try:
            return age_of_tree(unsealed) > _ABANDONED_SECONDS
        except FileNotFoundError:
            return False


def step_of(path: Path) -> int:
    """The step of a checkpoint's directory."""
    return int(path.name.removeprefix("checkpoint-"))
