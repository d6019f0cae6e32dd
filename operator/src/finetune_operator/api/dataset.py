"""Dataset: where rows come from, how they are cleaned and split; an immutable revision in its status."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.datasets import FileType, SourceFormat, TextRows
from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    Digest,
    JobFailure,
    Key,
    Metadata,
    Name,
    PrinterColumn,
    ResourceMeta,
    Resources,
    ResourceStatus,
    Scheduling,
    SecretKeyReference,
    Text,
    Token,
    Uri,
    VolumePath,
    Word,
    exactly_one_of,
    rule,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource, S3Credentials
from finetune_operator.api.cleaning import (
    TOKENS_NEED_TOKENIZER,
    ChangedRows,
    Cut,
    FoundData,
    Prepare,
    ReportReference,
    SplitSpec,
    StagedTokenizer,
    TokenStatistics,
)
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.api.storage import STORAGE_RULE, StorageSpec

INLINE_LIMIT = 128 * 1024


class InlineSource(ApiModel):
    """Rows in the YAML itself."""

    jsonl: Annotated[str, StringConstraints(min_length=1, max_length=INLINE_LIMIT)]
    """JSON lines, at most 128 KiB."""


class ConfigMapSource(ApiModel):
    """Rows in a ConfigMap of the same namespace."""

    name: Name
    """The ConfigMap's name."""
    key: Key
    """The key that holds the rows, named like a file: `rows.jsonl`."""


class HttpSource(ApiModel):
    """Files to download."""

    urls: Annotated[
        list[Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\s]+$")]],
        Field(min_length=1, max_length=64),
    ]
    """Addresses of files."""
    sha256: Annotated[
        list[Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9a-f]{64}$")]], Field(max_length=64)
    ] = []
    """One checksum for each URL, in the same order, or none."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.sha256) || size(self.sha256) == 0 || size(self.sha256) == size(self.urls)",
                "give one sha256 for each URL, or none",
            )
        )
    )


class HuggingFaceData(ApiModel):
    """A dataset repository of the Hugging Face Hub; its code, where it has some, is never run."""

    repo: Annotated[
        str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
    ]
    """The repository, such as `HuggingFaceH4/ultrachat_200k`."""
    config: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    """One of the repository's configurations; unset: its default or only one."""
    split: Annotated[str, StringConstraints(min_length=1, max_length=128)] = "train"
    """The split whose files are read."""
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "main"
    """A branch, tag or commit; status.revision.sourceRevision has the commit that it was."""
    token_secret_ref: SecretKeyReference | None = None
    """The Secret key that holds a Hub token, for gated or private repositories."""


class S3Data(ApiModel):
    """Objects of an S3-compatible store."""

    uri: Annotated[str, StringConstraints(max_length=1024, pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/.*)?$")]
    """An object, a prefix, or a glob such as `s3://bucket/tickets/**/*.jsonl.gz`."""
    endpoint: Annotated[str, StringConstraints(max_length=1024, pattern=r"^https?://[^\s]+$")] | None = None
    """Address of an S3-compatible server; unset: AWS."""
    region: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The bucket's region."""
    credentials_secret_ref: S3Credentials | None = None
    """The Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; unset: the pod's own identity."""


class MixturePart(ApiModel):
    """A Dataset that is part of a mixture."""

    dataset: Name
    """The Dataset's name; its revision when the reading begins is what is mixed."""
    weight: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """The part's share of the rows among all weights; unset everywhere: every row of each part."""


class DatasetSource(ApiModel):
    """Where rows come from: exactly one."""

    inline: InlineSource | None = None
    """Rows in the YAML itself."""
    config_map: ConfigMapSource | None = None
    """Rows in a ConfigMap."""
    http: HttpSource | None = None
    """Files to download."""
    persistent_volume_claim: VolumePath | None = None
    """Files in a volume; path may be a glob such as `tickets/*.jsonl`."""

    hugging_face: HuggingFaceData | None = None
    """A split of a Hugging Face dataset."""
    s3: S3Data | None = None
    """Objects of an S3-compatible store."""
    mixture: Annotated[list[MixturePart], Field(min_length=1, max_length=16)] | None = None
    """Rows of other Datasets of this namespace; each keeps the side of the split that it is on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("inline", "configMap", "http", "persistentVolumeClaim", "huggingFace", "s3", "mixture"),
            rule(
                "!has(self.mixture) || self.mixture.all(part, has(part.weight)) || "
                "!self.mixture.exists(part, has(part.weight))",
                "give every part of the mixture a weight, or none",
            ),
            rule(
                "!has(self.mixture) || self.mixture.all(part, self.mixture.exists_one(other, "
                "other.dataset == part.dataset))",
                "name each Dataset of the mixture once",
            ),
        )
    )


class FilesType(StrEnum):
    """What the source's files are."""

    AUTO = "Auto"
    JSON_LINES = FileType.JSON_LINES.value
    JSON = FileType.JSON.value
    CSV = FileType.CSV.value
    PARQUET = FileType.PARQUET.value
    TEXT = FileType.TEXT.value


class Files(ApiModel):
    """How the source's files are read; each may be packed by gzip or zstd."""

    type: FilesType = FilesType.AUTO
    """What the files are; Auto goes by their content and, for CSV and text, their suffix."""
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    """Between the cells of CSV files; unset: the one of `,` `;` `|` and tab that fits."""
    text_rows: TextRows = TextRows.LINE
    """Whether a row of a text file is a line, or the whole document."""


class DatasetFormat(StrEnum):
    """The shape of the source's rows."""

    AUTO = "Auto"
    ALPACA = SourceFormat.ALPACA.value
    SHARE_GPT = SourceFormat.SHARE_GPT.value
    MESSAGES = SourceFormat.MESSAGES.value
    PROMPT_COMPLETION = SourceFormat.PROMPT_COMPLETION.value
    TEXT = SourceFormat.TEXT.value
    CLASSIFICATION = SourceFormat.CLASSIFICATION.value
    PREFERENCE = SourceFormat.PREFERENCE.value
    UNPAIRED_PREFERENCE = SourceFormat.UNPAIRED_PREFERENCE.value
    PROMPTS = SourceFormat.PROMPTS.value


class Teacher(ApiModel):
    """The model that wrote synthetic rows."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """Its name, such as `meta-llama/Llama-3.3-70B-Instruct`."""
    terms: Text | None = None
    """Licence or terms that its answers are under, such as `Llama-3.3`: some forbid training other models."""


class License(ApiModel):
    """Under which licence the rows may be used."""

    spdx: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9.+-]+$")]
    """SPDX identifier, such as CC-BY-4.0; `LicenseRef-NAME` for terms of your own."""
    attribution: Text | None = None
    """Whom to name."""
    teacher: Teacher | None = None
    """The model that wrote the rows, where they are synthetic."""


class Refresh(ApiModel):
    """When the source is read again by itself; a new revision appears only if the content changed."""

    schedule: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    """Five fields as in cron, such as `0 3 * * 0`."""
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """The schedule's time zone, such as `Europe/Berlin`."""


class DatasetSpec(ApiModel):
    """What rows a model is to learn from."""

    model_config = ConfigDict(json_schema_extra=rules(STORAGE_RULE, TOKENS_NEED_TOKENIZER))

    source: DatasetSource
    """Where rows come from: exactly one."""
    format: DatasetFormat = DatasetFormat.AUTO
    """The shape of the source's rows; Auto looks at the first one."""
    columns: Annotated[dict[Word, Word], Field(max_length=16)] = {}
    """Our column name to the source's, such as `prompt: question`; `answers.text.0` goes into objects and lists."""
    files: Files = Files()
    """How the source's files are read."""
    prepare: Prepare = Prepare()
    """How rows are cleaned."""
    split: SplitSpec = SplitSpec()
    """How rows are divided into train, validation and test."""
    tokenizer: BaseModelSource | None = None
    """The base model whose tokenizer and chat template count tokens, for statistics and for filters."""
    license: License | None = None
    """Under which licence the rows may be used; a mixture is under the strictest of its parts'."""
    refresh: Refresh | None = None
    """When the source is read again by itself."""
    history: Annotated[int, Field(ge=0, le=20)] = 3
    """How many older revisions are kept, beside those that runs use."""
    resources: Resources = Resources()
    """What the preparing pod asks for."""
    scheduling: Scheduling = Scheduling()
    """Where the preparing pod may run."""
    pod_template: PodTemplate = PodTemplate()
    """What the preparing pod gets beside what the operator gives it."""
    storage: StorageSpec | None = None
    """Where the revision is kept; unset: where the operator's settings say (chart values storage)."""
    rerun: Token | None = None
    """Any new word reads the source again; a new revision appears only if the content changed.

    Removing the word does nothing.
    """


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


class Dataset(ApiModel):
    """Rows for fine-tuning: read, cleaned, split and stored as an immutable revision."""

    metadata: Metadata
    spec: DatasetSpec
    status: DatasetStatus = DatasetStatus()


META = ResourceMeta(
    kind="Dataset",
    plural="datasets",
    short_names=("dset",),
    columns=(
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Rows", ".status.revision.rows.kept", "integer"),
        PrinterColumn("Format", ".status.revision.format"),
        COMMON_REASON,
        PrinterColumn("Revision", ".status.revision.digest", wide=True),
        COMMON_MESSAGE,
        COMMON_AGE,
    ),
)
ROOT_RULES = (NAME_RULE,)
