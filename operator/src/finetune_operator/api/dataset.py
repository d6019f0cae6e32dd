"""Dataset: where rows come from, how they are cleaned and split; an immutable revision in its status."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.datasets import SourceFormat
from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    Metadata,
    PrinterColumn,
    ResourceMeta,
    Resources,
    Scheduling,
    Text,
    Token,
    Word,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource
from finetune_operator.api.cleaning import (
    TOKENS_NEED_TOKENIZER,
    Prepare,
    SplitSpec,
)
from finetune_operator.api.datasetstatus import DatasetStatus
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.api.sources import DatasetSource, Files, Teacher
from finetune_operator.api.storage import STORAGE_RULE, StorageSpec


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
