"""A Dataset's split as requests: each row's prompt, rendered as training renders it."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_batch.items import Fault, Item
from finetune_batch.lines import URLS
from finetune_contract.batching import DatasetRows
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.model import LanguageModel
from finetune_trainer.data.revision import shards_of
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.rows import answered, prompted_revision

_AT_ONCE = 1000
"""Rows that are read at a time."""


class Rows:
    """The rows of a split; `custom_id` is the split and the row's place in it, from 0."""

    faults = 0
    first_fault: Item | None = None

    def __init__(self, wanted: DatasetRows, directory: Path) -> None:
        """Take a verified revision.

        Raises:
            FineTuneError: DatasetInvalid when it has no such split, InvalidPlan when its rows have no prompts.
        """
        import pyarrow.parquet as parquet

        self._revision = prompted_revision(directory)
        if self._revision.row_format is RowFormat.TEXT:
            raise FineTuneError(
                FailureReason.INVALID_PLAN,
                "spec.input.dataset: Text rows have no prompt to answer; use a Dataset of Prompts or another format",
            )
        self._split = wanted.split
        self._shards = shards_of(directory, wanted.split)
        self._sizes = [parquet.read_metadata(path).num_rows for path in self._shards]
        self.rows = sum(self._sizes)
        if not self.rows:
            there = sorted({path.name.split("-")[0].removesuffix(".parquet") for path in directory.glob("*.parquet")})
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"spec.input.dataset.split: the revision has no {wanted.split} rows; it has {', '.join(there)}",
            )
        self.digest = wanted.revision.digest
        self._renderer: Renderer | None = None

    def items(self, first: int, count: int, model: LanguageModel) -> Iterator[Item]:
        """Some rows in their order.

        Raises:
            FineTuneError: TokenizerMismatch when the model cannot read rows of this format.
        """
        renderer = self._renderer = self._renderer or Renderer(model.tokenizer, self._revision.row_format)
        url = URLS[0] if renderer.is_chat else URLS[1]
        for number, row in enumerate(islice(self._values(first), count), start=first):
            custom_id = f"{self._split}-{number}"
            place = f"spec.input.dataset: {self._split} row {number}"
            try:
                prompt = renderer.prompt_ids(renderer.example(_with_some_answer(row)))
            except FineTuneError as error:
                if error.reason is not FailureReason.DATASET_INVALID:
                    raise
                yield Item(number, place, custom_id, fault=Fault("invalid_row", str(error)))
            else:
                yield Item(number, place, custom_id, url, prompt=prompt)

    def _values(self, first: int) -> Iterator[dict[str, Any]]:
        """The rows from one on, some at a time."""
        import pyarrow.parquet as parquet

        for path, size in zip(self._shards, self._sizes, strict=True):
            if first >= size:
                first -= size
                continue
            skip, first = first, 0
            for batch in parquet.ParquetFile(path).iter_batches(batch_size=_AT_ONCE):
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                yield from batch.slice(skip).to_pylist()
                skip = 0


def _with_some_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the renderer reads it: prompts need not have an answer, and none is looked at."""
    if "prompt" in row and not row.keys() & {"chosen", "completion"}:
        row = {**row, "answer": row.get("answer") or ""}
    return answered(row)
