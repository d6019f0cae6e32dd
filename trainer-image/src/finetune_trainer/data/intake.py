"""The rows of a source in one format, one at a time; what is no row is counted."""

import logging
from collections.abc import Iterator
from itertools import chain

from finetune_contract.datasets import DatasetPlan, DropReason, RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.formats import Normaliser
from finetune_trainer.data.mixture import Mixture
from finetune_trainer.data.read import read
from finetune_trainer.data.rows import Account, BadRow, RawRow, Row, RowFaultError
from finetune_trainer.data.sourcefile import SourceFile

log = logging.getLogger(__name__)


class Intake:
    """Reads and normalises; its format is that of the first row."""

    def __init__(self, plan: DatasetPlan, files: list[SourceFile], account: Account) -> None:
        """Settle the format.

        Raises:
            FineTuneError: DatasetInvalid or BadRow, naming file and line.
        """
        self._limit = plan.max_bad_rows
        self._account = account
        raw_rows = self._readable(plan, files)
        first = next(raw_rows, None)
        if first is None:
            names = ", ".join(file.name for file in files[:5])
            raise FineTuneError(FailureReason.DATASET_INVALID, f"{names}: holds no rows{account.counted()}")
        self.normaliser = Normaliser(first, plan.format, plan.columns)
        if unused := self.normaliser.unused_columns(first):
            log.info("columns that are not used: %s", ", ".join(unused))
        self._rest = chain((first,), raw_rows)

    @property
    def format(self) -> RowFormat:
        """The rows' format."""
        return self.normaliser.format

    def __iter__(self) -> Iterator[Row]:
        """The rows that hold something to learn from, in the order they are read."""
        for raw in self._rest:
            try:
                row = self.normaliser.normalise(raw)
            except RowFaultError as error:
                self._tolerate(BadRow(raw.origin, str(error)))
            else:
                if row is None:
                    self._account.drop(raw.origin, DropReason.EMPTY)
                else:
                    yield row

    def _readable(self, plan: DatasetPlan, files: list[SourceFile]) -> Iterator[RawRow]:
        """The rows that can be read; the others are counted against the limit."""
        for file in files:
            for row in read(file, plan.files):
                self._account.read += 1
                if isinstance(row, BadRow):
                    self._tolerate(row)
                else:
                    yield row

    def _tolerate(self, row: BadRow) -> None:
        self._account.drop(row.origin, DropReason.BAD_ROW, row.fault)
        bad = self._account.counts[DropReason.BAD_ROW]
        if bad > self._limit:
            allowed = f" (bad row number {bad}; spec.prepare.maxBadRows allows {self._limit})" if self._limit else ""
            raise FineTuneError(FailureReason.BAD_ROW, f"{row.origin}: {row.fault}{allowed}")


class MixtureIntake:
    """The rows that are drawn for a mixture: normalised long ago, with sides of their own."""

    def __init__(self, mixture: Mixture, account: Account) -> None:
        self._mixture = mixture
        self._account = account
        self.format = mixture.format

    def __iter__(self) -> Iterator[Row]:
        """The rows."""
        return self._mixture.rows(self._account)
