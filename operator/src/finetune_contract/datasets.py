"""Dataset pods: where rows come from, how a revision is made of them, and what became of it."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from finetune_contract.base import Count, Document, Label, Sha256, StoredReference
from finetune_contract.cleaning import Changed, CleaningPlan, Found, TokenCounts, Truncation
from finetune_contract.failure import Failure
from finetune_contract.storage import StorePlan

MOST_TEACHERS = 8
"""Teachers that a result names: it has to fit a termination message."""

Attribution = Annotated[str, StringConstraints(max_length=512)]


class RowFormat(StrEnum):
    """The shape of a dataset's normalised rows (the columns of its Parquet files)."""

    MESSAGES = "Messages"
    """`messages`: a list of {role, content}; an assistant's turn with weight 0 is not learnt."""
    PROMPT_COMPLETION = "PromptCompletion"
    """`prompt` and `completion`, both strings, taken as they are: no chat template."""
    TEXT = "Text"
    """`text`, for continued pre-training."""
    CLASSIFICATION = "Classification"
    """`text` and `label`; prompted through the chat template where the tokenizer has one."""
    PREFERENCE = "Preference"
    """`prompt` (a string, or the turns before the answer), `chosen` and `rejected`, both strings."""
    UNPAIRED_PREFERENCE = "UnpairedPreference"
    """`prompt` (a string, or turns), `completion`, and `label`: whether the completion is a good one."""
    PROMPTS = "Prompts"
    """`prompt` (a string, or turns), and perhaps `answer`: what a reward compares with."""


class SourceFormat(StrEnum):
    """The shape of a source's rows; all but two are also what the rows become."""

    ALPACA = "Alpaca"
    """`instruction`, perhaps `input`, `system` and `history`, and `output`: become Messages."""
    SHARE_GPT = "ShareGPT"
    """`conversations` of {from, value}, perhaps `system` and `tools`: become Messages."""
    MESSAGES = RowFormat.MESSAGES.value
    PROMPT_COMPLETION = RowFormat.PROMPT_COMPLETION.value
    TEXT = RowFormat.TEXT.value
    CLASSIFICATION = RowFormat.CLASSIFICATION.value
    PREFERENCE = RowFormat.PREFERENCE.value
    UNPAIRED_PREFERENCE = RowFormat.UNPAIRED_PREFERENCE.value
    PROMPTS = RowFormat.PROMPTS.value


class FileType(StrEnum):
    """What a source's file is, once it is unpacked."""

    JSON_LINES = "JSONLines"
    JSON = "JSON"
    """One list of objects."""
    CSV = "CSV"
    PARQUET = "Parquet"
    TEXT = "Text"


class TextRows(StrEnum):
    """What a row of a text file is."""

    LINE = "Line"
    DOCUMENT = "Document"
    """The whole file."""


class FileSettings(Document):
    """How a source's files are read."""

    type: FileType | None = None
    """None: told by content and suffix."""
    delimiter: str | None = None
    """Between the cells of a CSV file; None: told by its first records."""
    text_rows: TextRows = TextRows.LINE


class HttpSource(Document):
    """Files to download."""

    urls: tuple[str, ...]
    sha256: tuple[str, ...] = ()
    """One hexadecimal checksum per URL, or none at all."""


class HubFiles(Document):
    """One split of a dataset repository of the Hugging Face Hub; the token comes as HF_TOKEN."""

    repo: str
    config: str | None = None
    """None: the repository's default, or only, configuration."""
    split: str = "train"
    revision: str = "main"


class S3Files(Document):
    """Objects under a prefix, or that match a glob; credentials come as AWS_* environment variables."""

    uri: str
    endpoint: str | None = None
    region: str | None = None


class Teacher(Document):
    """The model that wrote synthetic rows."""

    model: str
    terms: str | None = None
    """Under which licence or terms its answers may be used."""


class MixedPart(Document):
    """A Dataset that a mixture was made of."""

    dataset: Label
    digest: Sha256
    """Of the revision whose rows were taken."""


class MixturePart(Document):
    """Another Dataset, at the revision that it had when the reading began."""

    name: str
    revision: StoredReference
    weight: float | None = None
    """The rows' share among all parts' weights; None in all parts: every row of each."""
    license: str | None = None
    """As its Dataset says now: equal rows of another Dataset may have brought their own licence into the store."""
    attribution: str | None = None
    teachers: tuple[Teacher, ...] = ()


class DatasetSource(Document):
    """Where rows come from: exactly one is set."""

    inline: str | None = None
    """JSON lines in the plan itself."""
    http: HttpSource | None = None
    hub: HubFiles | None = None
    s3: S3Files | None = None
    files: str | None = None
    """A glob under the source mount (a claim or a ConfigMap), relative."""
    mixture: tuple[MixturePart, ...] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        sources = (self.inline, self.http, self.hub, self.s3, self.files, self.mixture)
        if sum(value is not None for value in sources) != 1:
            raise ValueError("exactly one of inline, http, hub, s3, files, mixture must be set")
        return self


class SplitPlan(Document):
    """How rows are divided; near-duplicates stay on one side."""

    validation: float = 0.0
    """Fraction of the kept rows."""
    test: float = 0.0
    validation_rows: int | None = None
    """Instead of a fraction: how many rows; the pod answers the fraction that this is."""
    test_rows: int | None = None
    seed: int = 0
    stratify_by: str | None = None
    """A column whose values each have their share of every split, as far as no row has to leave its side for it."""


class DatasetPlan(StorePlan):
    """Read, normalise, clean, split and publish one dataset revision."""

    version: Literal[1] = 1
    name: str
    namespace: str
    source: DatasetSource
    format: SourceFormat | None = None
    """None: detected from the first row."""
    columns: dict[str, str] = {}
    """Our column name -> the source's."""
    exact_duplicates: bool = True
    """Whether exact duplicates are removed."""
    near_duplicate_similarity: float | None = None
    """Jaccard similarity of word shingles from which a row counts as a near-duplicate and is removed."""
    max_bad_rows: int = 0
    files: FileSettings = FileSettings()
    cleaning: CleaningPlan = CleaningPlan()
    tokenizer: StoredReference | None = None
    """The base model whose tokenizer and chat template tokens are counted with."""
    split: SplitPlan = SplitPlan()
    license: str | None = None
    """SPDX identifier, kept in the lineage."""
    attribution: str | None = None
    teacher: Teacher | None = None


class DropReason(StrEnum):
    """Why a dataset row is not in the revision."""

    EXACT_DUPLICATE = "ExactDuplicate"
    NEAR_DUPLICATE = "NearDuplicate"
    BAD_ROW = "BadRow"
    EMPTY = "Empty"
    TOO_SHORT = "TooShort"
    TOO_LONG = "TooLong"
    LOW_QUALITY = "LowQuality"
    PERSONAL_DATA = "PersonalData"
    CONTAMINATED = "Contaminated"


class Dropped(Document):
    """Rows that were left out, by reason."""

    reason: DropReason
    rows: Count


class Split(Document):
    """One part of a dataset revision."""

    name: Label
    rows: Count
    fraction: float | None = None
    """Where a number of rows was asked for: the fraction that keeps every row on its side from now on."""
    tokens: TokenCounts | None = None


class DatasetResult(Document):
    """What a dataset pod leaves."""

    revision: StoredReference | None = None
    format: RowFormat | None = None
    rows_read: Count = 0
    rows_kept: Count = 0
    dropped: tuple[Dropped, ...] = ()
    splits: tuple[Split, ...] = ()
    report: StoredReference | None = None
    """Holds `report.html`, `statistics.json` and `dropped.jsonl.zst` of this reading."""
    changed: tuple[Changed, ...] = ()
    personal_data: tuple[Found, ...] = ()
    truncation: tuple[Truncation, ...] = ()
    source_revision: Label | None = None
    """The Hub's commit, or `sha256:` over what was read."""
    license: Label | None = None
    """SPDX identifier or expression; a mixture's is the strictest of its parts'."""
    attribution: Attribution | None = None
    """Whom to name, with all that a mixture inherits; where it is longer, the manifest has the whole."""
    teachers: Annotated[tuple[Teacher, ...], Field(max_length=MOST_TEACHERS)] = ()
    """Models that wrote rows; the manifest has all."""
    parts: tuple[MixedPart, ...] = ()
    """What a mixture was made of."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure is None) == (self.revision is None):
            raise ValueError("a result has either a failure or a revision")
        if (self.revision is None) != (self.format is None):
            raise ValueError("a revision has a format")
        return self
