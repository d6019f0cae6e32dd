"""Rows of a dataset revision, as its publisher left them in the store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.plans import Method, RowFormat, unfit_rows
from finetune_store.manifests import read_manifest


@dataclass(frozen=True)
class Revision:
    """A dataset revision in this pod."""

    directory: Path
    row_format: RowFormat

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split in their stored order; none where the revision has no such split."""
        import pyarrow.parquet as parquet

        path = self.directory / f"{split}.parquet"
        return list(parquet.read_table(path).to_pylist()) if path.is_file() else []


def open_revision(directory: Path, method: Method) -> Revision:
    """A verified revision, if the method can learn from it.

    Raises:
        FineTuneError: DatasetInvalid when it does not say its format, InvalidPlan when the method needs another one.
    """
    name = read_manifest(directory).lineage.get("format")
    if name not in list(RowFormat):
        raise FineTuneError(FailureReason.DATASET_INVALID, f"the dataset revision's format is {name!r}")
    row_format = RowFormat(name)
    if unfit := unfit_rows(method, row_format):
        raise FineTuneError(FailureReason.INVALID_PLAN, unfit)
    return Revision(directory, row_format)
