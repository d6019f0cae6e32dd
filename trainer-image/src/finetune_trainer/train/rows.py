"""Rows of a dataset revision, as its publisher left them in the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import Method, unfit_rows
from finetune_store.manifests import read_manifest
from finetune_trainer.data.revision import shards_of

_PROMPTED = (RowFormat.PREFERENCE, RowFormat.UNPAIRED_PREFERENCE, RowFormat.PROMPTS)
"""Formats whose rows have a prompt of their own: text, or turns."""


@dataclass(frozen=True)
class Revision:
    """A dataset revision in this pod.

    Rows of preferences and prompts are read as Messages or PromptCompletion rows, by what their prompts are; what else
    they have (`rejected`, `label`) stays beside.
    """

    directory: Path
    row_format: RowFormat
    """What the rows are read as."""

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split in their stored order; none where the revision has no such split."""
        import pyarrow.parquet as parquet

        paths = shards_of(self.directory, split)
        return [answered(row) for path in paths for row in parquet.read_table(path).to_pylist()]


def with_answer(row: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """The row with another answer to its prompt."""
    if "messages" in row:
        return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": answer}]}
    if "text" in row:
        return {**row, "label": answer}
    return {**row, "completion": answer}


def answered(row: dict[str, Any]) -> dict[str, Any]:
    """A row with a prompt of its own as a row with the answer that is wanted."""
    if "chosen" in row:
        answer = row.pop("chosen")
    elif "label" in row and "prompt" in row:
        answer = row.pop("completion")
    elif "answer" in row:
        answer = row.pop("answer")
    else:
        return row
    if isinstance(row["prompt"], str):
        return {**row, "completion": answer}
    turns = row.pop("prompt")
    return {**row, "messages": [*turns, {"role": "assistant", "content": answer}]}


def _read_as(directory: Path, row_format: RowFormat) -> RowFormat:
    import pyarrow.parquet as parquet
    import pyarrow.types as types

    if row_format not in _PROMPTED:
        return row_format
    (first, *_) = sorted(directory.glob("*.parquet"))
    prompt = parquet.read_schema(first).field("prompt").type
    return RowFormat.PROMPT_COMPLETION if types.is_string(prompt) else RowFormat.MESSAGES


def open_revision(directory: Path, method: Method) -> Revision:
    """A verified revision, if the method can learn from it.

    Raises:
        FineTuneError: DatasetInvalid when it does not say its format, InvalidPlan when the method needs another one.
    """
    row_format = format_of(directory)
    if unfit := unfit_rows(method, row_format):
        raise FineTuneError(FailureReason.INVALID_PLAN, unfit)
    return Revision(directory, _read_as(directory, row_format))


def prompted_revision(directory: Path) -> Revision:
    """A verified revision for its prompts alone.

    Raises:
        FineTuneError: DatasetInvalid when it does not say its format.
    """
    return Revision(directory, _read_as(directory, format_of(directory)))


def format_of(directory: Path) -> RowFormat:
    """The format of a revision's rows as they are stored.

    Raises:
        FineTuneError: DatasetInvalid when it does not say so.
    """
    name = read_manifest(directory).lineage.get("format")
    if name not in list(RowFormat):
        raise FineTuneError(FailureReason.DATASET_INVALID, f"the dataset revision's format is {name!r}")
    return RowFormat(name)
