"""What a Dataset's status says of the revisions that readings of its source made."""

from dataclasses import dataclass
from datetime import datetime

from finetune_contract.datasets import DatasetResult, Split
from finetune_operator.api.cleaning import (
    ChangedRows,
    Cut,
    FoundData,
    ReportReference,
    StagedTokenizer,
    TokenStatistics,
)
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.datasetstatus import (
    DroppedRows,
    MixedPart,
    OlderRevision,
    RefreshStatus,
    Revision,
    RowCounts,
    SplitCount,
)
from finetune_operator.api.sources import Teacher


@dataclass(frozen=True)
class Reading:
    """One reading of a Dataset's source that has ended well."""

    dataset: Dataset
    key: str
    """Names the reading."""
    rerun: str | None
    """The word in the spec that asked for it."""
    refresh: RefreshStatus | None
    tokenizer: StagedTokenizer | None
    """What counted the tokens."""
    ended_at: datetime


def made_by(reading: Reading, result: DatasetResult) -> Revision:
    """The revision that a reading made; one that found the same rows again is as old as before."""
    assert result.revision is not None
    assert result.format is not None
    before, refresh = reading.dataset.status.revision, reading.refresh
    is_known = before is not None and before.digest == result.revision.digest
    scheduled_for = (refresh.scheduled_for if refresh else None) or (before.scheduled_for if before else None)
    return Revision(
        digest=result.revision.digest,
        uri=result.revision.uri,
        key=reading.key,
        rerun=reading.rerun,
        scheduled_for=scheduled_for,
        source_revision=result.source_revision,
        license=result.license,
        attribution=result.attribution,
        teachers=[Teacher.model_validate(teacher.model_dump()) for teacher in result.teachers],
        parts=[MixedPart.model_validate(part.model_dump()) for part in result.parts[:16]],
        created_at=before.created_at if before and is_known else reading.ended_at.replace(microsecond=0),
        format=result.format.value,
        rows=RowCounts(read=result.rows_read, kept=result.rows_kept),
        dropped=[DroppedRows(reason=entry.reason.value, rows=entry.rows) for entry in result.dropped[:16]],
        changed=[ChangedRows(reason=entry.reason.value, rows=entry.rows) for entry in result.changed[:8]],
        personal_data=[FoundData.model_validate(entry.model_dump()) for entry in result.personal_data[:16]],
        splits=[_split_count(reading.dataset, entry) for entry in result.splits[:4]],
        tokenizer=reading.tokenizer.digest if reading.tokenizer else None,
        truncation=[Cut.model_validate(entry.model_dump()) for entry in result.truncation[:8]],
        report=ReportReference.model_validate(result.report.model_dump()) if result.report else None,
    )


def _split_count(dataset: Dataset, split: Split) -> SplitCount:
    """A split with the fraction that a number of rows became, this time or before."""
    spec, before = dataset.spec.split, dataset.status.revision
    wanted = {"validation": spec.validation, "test": spec.test}.get(split.name, 0.0)
    requested = int(wanted) if wanted >= 1 else None
    fraction = split.fraction
    if requested is not None and fraction is None and before:
        known = (part.fraction for part in before.splits if part.name == split.name and part.requested == requested)
        fraction = next(known, None)
    tokens = TokenStatistics.model_validate(split.tokens.model_dump()) if split.tokens else None
    return SplitCount(name=split.name, rows=split.rows, requested=requested, fraction=fraction, tokens=tokens)


def history(dataset: Dataset, new: Revision | None) -> list[OlderRevision]:
    """The revisions that are kept beside the present one: as long as a status names one, nothing deletes it."""
    before, kept = dataset.status.revision, list(dataset.status.history)
    present = new or before
    if new and before and before.digest != new.digest:
        older = OlderRevision(digest=before.digest, uri=before.uri, created_at=before.created_at, rows=before.rows.kept)
        kept = [older, *(entry for entry in kept if entry.digest != older.digest)]
    return [entry for entry in kept if present is None or entry.digest != present.digest][: dataset.spec.history]


def summary(revision: Revision) -> str:
    """A line for people: how many rows there are, and where."""
    splits = ", ".join(f"{split.rows} {split.name}" for split in revision.splits)
    return f"{revision.rows.kept} of {revision.rows.read} rows: {splits}"
