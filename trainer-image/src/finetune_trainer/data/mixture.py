"""A mixture: rows of other Datasets' revisions, drawn by weight. Every row keeps the side of the split it is on."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_contract.datasets import DropReason, MixturePart, RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.manifests import read_manifest
from finetune_store.store import Store
from finetune_trainer.data.provenance import Terms, inherited, mixture_lineage, terms_of
from finetune_trainer.data.revision import shards_of
from finetune_trainer.data.rows import Account, Origin, Row, make_row
from finetune_trainer.data.split import TEST, TRAIN, VALIDATION

log = logging.getLogger(__name__)

_SIDES = (TEST, VALIDATION, TRAIN)
"""What a row is that two parts have on different sides: the first of these. Nothing held out is trained on."""

_BATCH = 1000


class Mixture:
    """The parts, verified, and which of their rows are drawn."""

    def __init__(self, parts: Sequence[MixturePart], seed: int, store: Store) -> None:
        """Verify the parts' revisions.

        Raises:
            FineTuneError: DatasetInvalid for parts of different formats, StorageUnavailable for one that is damaged.
        """
        self._parts = parts
        self._seed = seed
        self._directories = {part.name: store.verify(part.revision) for part in parts}
        self._lineages = {name: read_manifest(directory).lineage for name, directory in self._directories.items()}
        formats = {name: lineage.get("format", "") for name, lineage in self._lineages.items()}
        if len(set(formats.values())) != 1:
            listed = ", ".join(f"{name} has {row_format}" for name, row_format in formats.items())
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"spec.source.mixture: rows of different formats cannot be mixed: {listed}",
            )
        self.format = RowFormat(next(iter(formats.values())))

    def terms(self, own: Terms) -> tuple[Terms, dict[str, str]]:
        """What the mixture inherits, and what its manifest says of its parts."""
        terms = {part.name: terms_of(part, self._lineages[part.name]) for part in self._parts}
        return inherited(terms, own), mixture_lineage(self._parts, terms, self._lineages)

    def rows(self, account: Account) -> Iterator[Row]:
        """The rows that are drawn; what one part holds out is dropped where another would train on it."""
        seen: set[bytes] = set()
        for side in _SIDES:
            here: set[bytes] = set()
            for part, limit in zip(self._parts, self._limits(side), strict=True):
                for row in self._rows(part, side):
                    digest = bytes.fromhex(row.digest)
                    if limit is not None and self._place(row) > limit:
                        continue
                    account.read += 1
                    if digest in seen:
                        account.drop(row.origin, DropReason.EXACT_DUPLICATE, "a row that another part holds out")
                        continue
                    here.add(digest)
                    yield row
            seen |= here if side != TRAIN else set()

    def _limits(self, side: str) -> list[bytes | None]:
        """Per part the place up to which its rows are drawn; None: all.

        The most rows are drawn with which the weights are kept and none is drawn twice.
        """
        if any(part.weight is None for part in self._parts):
            return [None] * len(self._parts)
        places = [sorted(self._place(row) for row in self._rows(part, side)) for part in self._parts]
        weighted = [(len(found), part.weight or 0.0) for found, part in zip(places, self._parts, strict=True) if found]
        scale = min((count / weight for count, weight in weighted), default=0.0)
        limits: list[bytes | None] = []
        for found, part in zip(places, self._parts, strict=True):
            drawn = min(len(found), max(1, round(scale * (part.weight or 0.0))))
            limits.append(found[drawn - 1] if found else None)
            log.info("%s of %s: %d of %d rows", side, part.name, drawn if found else 0, len(found))
        return limits

    def _rows(self, part: MixturePart, side: str) -> Iterator[Row]:
        return rows_in(part.name, shards_of(self._directories[part.name], side), side)

    def _place(self, row: Row) -> bytes:
        """Where a row is in the order of drawing: its own, so that a part that grows keeps most of what was drawn."""
        return hashlib.sha256(f"{self._seed}:{row.digest}".encode()).digest()


def side_of(origin: Origin) -> str:
    """The split that a mixture's row is in."""
    return origin.file.rpartition("/")[2]


def rows_in(name: str, shards: Iterable[Path], side: str) -> Iterator[Row]:
    """The rows of a split's files, as they were when they were written."""
    from pyarrow import parquet

    number = 0
    for shard in shards:
        for batch in parquet.ParquetFile(shard).iter_batches(_BATCH, use_threads=False):
            for value in batch.to_pylist():
                number += 1
                yield make_row(Origin(f"{name}/{side}", number, "row"), _without_null(value))


def _without_null(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A row as it was before Parquet gave every row all the columns."""
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value
