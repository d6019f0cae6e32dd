"""`python -m finetune_trainer prepare --plan plan.json`: one dataset revision, or one named failure.

Reads as the list of its steps. Nothing is in the store until the last one, so a failure leaves no revision and no
partial directory.
"""

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from finetune_contract.datasets import DatasetPlan, DatasetResult, DropReason, RowFormat, Split
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.paths import PLAN_FILE, SCRATCH_MOUNT, SOURCE_MOUNT, STORE_MOUNT, TERMINATION_LOG
from finetune_store.edge import read_plan, run_command
from finetune_store.opening import open_store
from finetune_store.store import Store
from finetune_trainer.data.clean import near_groups, without_exact_duplicates, without_near_duplicates
from finetune_trainer.data.formats import Normaliser
from finetune_trainer.data.licences import inherited
from finetune_trainer.data.mixture import Mixture, by_side
from finetune_trainer.data.read import read
from finetune_trainer.data.revision import digest_of, write_revision
from finetune_trainer.data.rows import Account, BadRow, RawRow, Row, RowFaultError
from finetune_trainer.data.sources import SourceFile, address_of, fetch
from finetune_trainer.data.split import divide

log = logging.getLogger(__name__)

SPLIT_SIMILARITY = 0.85
"""From here on rows that are all kept are still too alike to be trained on and tested on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="finetune_trainer prepare", description="Make one dataset revision.")
    parser.add_argument("--plan", type=Path, default=PLAN_FILE)
    parser.add_argument("--store", type=Path, default=STORE_MOUNT, help="where the claim is mounted")
    parser.add_argument("--source", type=Path, default=SOURCE_MOUNT, help="where the user's volume is mounted")
    parser.add_argument("--scratch", type=Path, default=SCRATCH_MOUNT, help="for downloads")
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="where the result goes")
    options = parser.parse_args(arguments)

    def work() -> DatasetResult:
        plan = read_plan(options.plan, DatasetPlan)
        return prepare(plan, open_store(plan, options.store), options.source, options.scratch)

    return run_command(work, lambda failure: DatasetResult(failure=failure), options.termination_log)


def prepare(plan: DatasetPlan, store: Store, source_mount: Path, scratch: Path) -> DatasetResult:
    """Make a plan's revision.

    Raises:
        FineTuneError: DatasetInvalid, BadRow or SourceUnavailable, naming file and line.
    """
    store.register(plan.namespace)
    account = Account()
    mixture: Mixture | None = None
    if plan.source.mixture is not None:
        mixture = Mixture(plan.source.mixture, plan.split.seed, store)
        row_format, revision = mixture.format, None
        rows = sorted(mixture.rows(account), key=lambda row: row.digest)
    else:
        files, revision = fetch(plan.source, source_mount, scratch)
        row_format, rows = _normalised(plan, files, account)
    log.info("read %d rows of %s", account.read, row_format)
    groups = _cleaned(plan, rows, account)
    if not groups:
        raise FineTuneError(FailureReason.DATASET_INVALID, f"no row is left of {account.read}{_counted(account)}")
    splits = divide(groups, plan.split) if mixture is None else by_side(row for group in groups for row in group)
    lineage = _lineage(plan, row_format, revision, mixture.lineages if mixture else None)
    with store.workspace(StoredKind.DATASET) as work:
        write_revision(work, splits, account.drops)
        stored = store.publish(StoredKind.DATASET, work, lineage, digest_of(row_format, splits))
    log.info("revision %s: %s", stored.digest, {name: len(rows) for name, rows in splits.items()})
    return DatasetResult(
        revision=stored,
        format=row_format,
        rows_read=account.read,
        rows_kept=account.read - len(account.drops),
        dropped=account.by_reason(),
        splits=tuple(Split(name=name, rows=len(rows)) for name, rows in splits.items()),
        source_revision=revision,
        license=lineage.get("license"),
    )


def _normalised(plan: DatasetPlan, files: list[SourceFile], account: Account) -> tuple[RowFormat, list[Row]]:
    """Every row of the sources in one format, sorted by digest, which makes all that follows independent of order."""
    normaliser: Normaliser | None = None
    kept: list[Row] = []
    for raw in _tolerated(plan, files, account):
        if normaliser is None:
            normaliser = Normaliser(raw, plan.format, plan.columns)
            if unused := normaliser.unused_columns(raw):
                log.info("columns that are not used: %s", ", ".join(unused))
        try:
            row = normaliser.normalise(raw)
        except RowFaultError as error:
            _tolerate(BadRow(raw.origin, str(error)), plan.max_bad_rows, account)
        else:
            if row is None:
                account.drop(raw.origin, DropReason.EMPTY)
            else:
                kept.append(row)
    if normaliser is None:
        names = ", ".join(file.name for file in files[:5])
        raise FineTuneError(FailureReason.DATASET_INVALID, f"{names}: holds no rows{_counted(account)}")
    kept.sort(key=lambda row: row.digest)
    return normaliser.format, kept


def _tolerated(plan: DatasetPlan, files: Iterable[SourceFile], account: Account) -> Iterator[RawRow]:
    """The rows that can be read; the others are counted against the limit."""
    for file in files:
        for row in read(file, plan.files):
            account.read += 1
            if isinstance(row, BadRow):
                _tolerate(row, plan.max_bad_rows, account)
            else:
                yield row


def _tolerate(row: BadRow, limit: int, account: Account) -> None:
    account.drop(row.origin, DropReason.BAD_ROW, row.fault)
    bad = account.counts[DropReason.BAD_ROW]
    if bad > limit:
        allowed = f" (bad row number {bad}; spec.prepare.maxBadRows allows {limit})" if limit else ""
        raise FineTuneError(FailureReason.BAD_ROW, f"{row.origin}: {row.fault}{allowed}")


def _cleaned(plan: DatasetPlan, rows: list[Row], account: Account) -> list[list[Row]]:
    """The rows that stay, in the groups that a split must not part."""
    if plan.exact_duplicates:
        rows = list(without_exact_duplicates(rows, account))
    if plan.near_duplicate_similarity is not None:
        rows = without_near_duplicates(rows, plan.near_duplicate_similarity, account)
        return [[row] for row in rows]
    return near_groups(rows, SPLIT_SIMILARITY) if plan.split.validation or plan.split.test else [[row] for row in rows]


def _lineage(
    plan: DatasetPlan, row_format: RowFormat, revision: str | None, parts: dict[str, dict[str, str]] | None
) -> dict[str, str]:
    """Where the rows come from and what they may be used for."""
    facts = {
        "name": f"{plan.namespace}/{plan.name}",
        "format": row_format.value,
        "source": address_of(plan.source),
        "sourceRevision": revision,
    }
    terms = {
        "license": plan.license,
        "attribution": plan.attribution,
        "teacher": plan.teacher.model if plan.teacher else None,
        "teacherTerms": plan.teacher.terms if plan.teacher else None,
    }
    own = {name: value for name, value in terms.items() if value}
    return {name: value for name, value in facts.items() if value} | (own if parts is None else inherited(parts, own))


def _counted(account: Account) -> str:
    counts = ", ".join(f"{dropped.rows} {dropped.reason}" for dropped in account.by_reason())
    return f" ({counts})" if counts else ""
