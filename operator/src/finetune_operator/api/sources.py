"""Where the rows of a Dataset come from, and what kind of files they are."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.datasets import FileType, TextRows
from finetune_operator.api.base import (
    ApiModel,
    Key,
    Name,
    SecretKeyReference,
    Text,
    VolumePath,
    exactly_one_of,
    rule,
    rules,
)
from finetune_operator.api.basemodel import S3Credentials

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


class Teacher(ApiModel):
    """The model that wrote synthetic rows."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """Its name, such as `meta-llama/Llama-3.3-70B-Instruct`."""
    terms: Text | None = None
    """Licence or terms that its answers are under, such as `Llama-3.3`: some forbid training other models."""
