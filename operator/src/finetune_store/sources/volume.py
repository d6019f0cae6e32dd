"""A directory of the user's own claim, mounted read-only."""

import shutil
from pathlib import Path

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import FileEntry, digest_of_files
from finetune_store.files import is_within, make_directory, sha256_of_all, some_of
from finetune_store.sources.base import Listing, is_needed


class VolumeSource:
    """A model's files under the source mount."""

    field = "spec.baseModel.persistentVolumeClaim"

    def __init__(self, path: str, mount: Path) -> None:
        """Take the directory, relative to the mount."""
        self._mount = mount
        self._directory = mount / path
        self.address = f"volume:{path}"
        self.name = path
        if not is_within(self._directory, mount):
            raise FineTuneError(FailureReason.INVALID_PLAN, f"{self.field}.path: {path} leaves the claim")

    def listing(self) -> Listing:
        """The files a model needs; the revision is over their content, which reads all of it."""
        if not self._directory.is_dir():
            raise FineTuneError(
                FailureReason.MODEL_NOT_FOUND,
                f"{self.field}.path: there is no directory {self.name} in the claim; it holds {some_of(self._mount)}",
            )
        paths = sorted(path for path in self._directory.rglob("*") if path.is_file() and is_needed(self._name(path)))
        for path in paths:
            # A Hub cache links into its own blobs, which is fine; a link out of the mount reads the pod's own files.
            if not is_within(path, self._mount):
                raise FineTuneError(
                    FailureReason.INVALID_PLAN, f"{self.field}.path: {self._name(path)} links out of the claim"
                )
        entries = tuple(
            FileEntry(path=self._name(path), size=path.stat().st_size, sha256=digest)
            for path, digest in zip(paths, sha256_of_all(paths), strict=True)
        )
        return Listing(digest_of_files(entries), {entry.path: entry.size for entry in entries})

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Copy the files, links followed."""
        for path in listing.files:
            make_directory((directory / path).parent)
            shutil.copyfile(self._directory / path, directory / path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._directory).as_posix()
