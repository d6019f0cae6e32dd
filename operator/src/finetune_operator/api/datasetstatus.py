"""What became of a Dataset: its revisions, what was read and dropped, and when it is read again."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_operator.api.base import (
    ApiModel,
    Digest,
    JobFailure,
    ResourceStatus,
    Text,
    Token,
    Uri,
    Word,
)
from finetune_operator.api.cleaning import (
    ChangedRows,
    Cut,
    FoundData,
    ReportReference,
    StagedTokenizer,
    TokenStatistics,
)
from finetune_operator.api.sources import Teacher


class MixedPart(ApiModel):
    """A Dataset that a mixture was made of."""

    dataset: Word
    """Its name."""
    digest: Digest
    """The revision whose rows were taken."""


class RowCounts(ApiModel):
    """How many rows there were and are."""

    read: int
    """Rows in the source."""
    kept: int
    """Rows in the revision."""


class DroppedRows(ApiModel):
    """Rows that were left out."""

    reason: Word
    """Why they were left out, such as ExactDuplicate."""
    rows: int
    """How many were."""


class SplitCount(ApiModel):
    """One part of the revision."""

    name: Word
    """train, validation or test."""
    rows: int
    """How many rows it has."""
    requested: int | None = None
    """The number of rows that spec.split asked for."""
    fraction: float | None = None
    """The fraction that this number became with the first revision."""
    tokens: TokenStatistics | None = None
    """Its tokens, where spec.tokenizer is set."""


class Revision(ApiModel):
    """An immutable, content-addressed state of the rows."""

    digest: Digest
    """Names the content: equal rows and splits have an equal digest."""
    key: Word
    """Names the source and settings that were read."""
    rerun: Token | None = None
    """The word in spec.rerun that it was read for."""
    scheduled_for: datetime | None = None
    """The time by spec.refresh that it was last read for."""
    source_revision: Word | None = None
    """What the source was: the Hub's commit, or a digest of the files."""
    license: Word | None = None
    """SPDX identifier or expression, a mixture's with what it inherits."""
    attribution: Text | None = None
    """Whom to name, a mixture's with what it inherits; the manifest has the whole."""
    teachers: Annotated[list[Teacher], Field(max_length=8)] = []
    """Models that wrote rows, a mixture's with those of all its parts; the manifest has all."""
    parts: Annotated[list[MixedPart], Field(max_length=16)] = []
    """The revisions that a mixture was made of."""
    uri: Uri
    """Where it is stored."""
    created_at: datetime
    """When it became this Dataset's revision."""
    format: Word
    """The shape of its rows."""
    rows: RowCounts
    """How many rows there were and are."""
    dropped: Annotated[list[DroppedRows], Field(max_length=16)] = []
    """What was left out, by reason."""
    changed: Annotated[list[ChangedRows], Field(max_length=8)] = []
    """What was changed in rows that stayed, by reason."""
    personal_data: Annotated[list[FoundData], Field(max_length=16)] = []
    """What personal data the source has, by kind."""
    splits: Annotated[list[SplitCount], Field(max_length=4)] = []
    """Its parts."""
    tokenizer: Digest | None = None
    """The base model whose tokenizer counted."""
    truncation: Annotated[list[Cut], Field(max_length=8)] = []
    """What usual values of maxLength would cut."""
    report: ReportReference | None = None
    """What people read about it."""


class OlderRevision(ApiModel):
    """A revision that a newer one has replaced."""

    digest: Digest
    """Names the content."""
    uri: Uri
    """Where it is stored."""
    created_at: datetime
    """When it became this Dataset's revision."""
    rows: int
    """How many rows it has."""


class RefreshStatus(ApiModel):
    """What became of spec.refresh."""

    schedule: Annotated[str, StringConstraints(max_length=256)]
    """The schedule and time zone that this is by."""
    scheduled_for: datetime | None = None
    """The time for which the source was, or is being, read."""
    next_at: datetime | None = None
    """When it is read next."""
    failure: JobFailure | None = None
    """Why the last reading failed; the revision before it stays."""


class DatasetStatus(ResourceStatus):
    """What became of the rows."""

    tokenizer: StagedTokenizer | None = None
    """The base model of spec.tokenizer, in the store."""
    revision: Revision | None = None
    """The newest revision; stays while a later reading fails."""
    history: Annotated[list[OlderRevision], Field(max_length=20)] = []
    """Older revisions that are kept, newest first."""
    refresh: RefreshStatus | None = None
    """What became of spec.refresh."""
    failure: JobFailure | None = None
    """Why the last reading failed."""
