"""How a Dataset's rows are cleaned and divided, and what is told about them."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.cleaning import PersonalDataPolicy, Quality
from finetune_operator.api.base import ApiModel, Digest, Uri, Word, rule, rules

LARGEST_COUNT = 100_000_000

Limit = Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None


class NearDuplicates(ApiModel):
    """Removal of rows that nearly repeat another."""

    similarity: Annotated[float, Field(ge=0.5, le=1)] = 0.85
    """Jaccard similarity of word sequences from which a row counts as a repetition."""


class Deduplicate(ApiModel):
    """Which repetitions are removed."""

    exact: bool = True
    """Remove rows that repeat another exactly."""
    near: NearDuplicates | None = None
    """Remove rows that nearly repeat another; unset: kept, all on one side of the split."""


class FilterSpec(ApiModel):
    """Rows that stay; what is unset limits nothing."""

    min_tokens: Limit = None
    """Fewest tokens of a row; needs spec.tokenizer."""
    max_tokens: Limit = None
    """Most tokens of a row; needs spec.tokenizer."""
    min_characters: Limit = None
    """Fewest characters of all of a row's texts."""
    max_characters: Limit = None
    """Most characters of all of a row's texts."""
    min_words: Limit = None
    """Fewest words of all of a row's texts."""
    max_words: Limit = None
    """Most words of all of a row's texts."""
    quality: Quality = Quality.DISABLED
    """Gopher removes rows that are no running text: symbols, bullets, repetitions (Rae et al. 2021)."""


class Decontaminate(ApiModel):
    """Removal of train rows that hold a piece of a held-out row."""

    ngram: Annotated[int, Field(ge=5, le=50)] = 13
    """Words in a row that a train row must not share with a held-out row.

    Runs of words that more than ten train rows have do not count: they are a template's.
    """


class Prepare(ApiModel):
    """How rows are cleaned."""

    strip_instructions: bool = False
    """Cut off what all prompts begin with, so that the tuned model is asked without the instruction."""
    deduplicate: Deduplicate = Deduplicate()
    """Which repetitions are removed."""
    filters: FilterSpec = FilterSpec()
    """Which rows are too short, too long or no running text."""
    personal_data: PersonalDataPolicy = PersonalDataPolicy.REPORT
    """What becomes of rows with e-mail addresses, telephone, bank, card or identity numbers, IP addresses or keys.

    Report counts them, Redact replaces what is found by a word such as [EMAIL], DropRow leaves the rows out, Fail makes
    no revision.
    """
    personal_data_regions: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$", max_length=2)]], Field(max_length=16)
    ] = []
    """Countries, such as DE, whose telephone numbers are found without a country code, too."""
    decontaminate: Decontaminate | None = None
    """Remove train rows that share text with validation or test rows; unset: kept."""
    max_bad_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many lines may be unreadable; they are counted and left out. One more fails the Dataset."""


Part = Annotated[float, Field(ge=0, le=LARGEST_COUNT)]


class SplitSpec(ApiModel):
    """How rows are divided; a row keeps its side when others are added."""

    validation: Part = 0.0
    """Rows that tune nothing but tell when to stop: a fraction up to 0.9, or a number of rows.

    A number becomes a fraction with the first revision, so that later ones move no row.
    """
    test: Part = 0.0
    """Rows that only the evaluation sees: a fraction up to 0.9, or a number of rows."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Another seed divides differently."""
    stratify_by: Word | None = None
    """The column `label`: each label has at least half of its share of every split, and every one that it can have."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                rule(
                    f"!has(self.{name}) || double(self.{name}) <= 0.9 || "
                    f"(double(self.{name}) >= 1.0 && double(self.{name}) == double(int(self.{name})))",
                    f"{name} is a fraction up to 0.9, or a whole number of rows",
                )
                for name in ("validation", "test")
            ),
            rule(
                "(has(self.validation) && double(self.validation) < 1.0 ? double(self.validation) : 0.0) + "
                "(has(self.test) && double(self.test) < 1.0 ? double(self.test) : 0.0) <= 0.9",
                "validation and test together may take at most 0.9: rows to train on must remain",
            ),
        )
    )


TOKENS_NEED_TOKENIZER = rule(
    "!has(self.prepare) || !has(self.prepare.filters) || has(self.tokenizer) || "
    "!(has(self.prepare.filters.minTokens) || has(self.prepare.filters.maxTokens))",
    "prepare.filters.minTokens and maxTokens count tokens: name the base model in spec.tokenizer",
)


class ChangedRows(ApiModel):
    """Rows that are in the revision otherwise than they were read."""

    reason: Word
    """How, such as PersonalDataRedacted."""
    rows: int
    """How many."""


class FoundData(ApiModel):
    """Personal data of one kind that the source has."""

    kind: Word
    """Which kind, such as Email."""
    rows: int
    """Rows that have some."""
    count: int
    """How many there are."""


class TokenStatistics(ApiModel):
    """Tokens of a split's rows, by spec.tokenizer."""

    total: int
    """All of them."""
    p50: int
    """Half of the rows have no more."""
    p95: int
    """95 % of the rows have no more."""
    p99: int
    """99 % of the rows have no more."""
    max: int
    """The longest row's."""
    supervised: int
    """Tokens that training learns, the others are only read."""


class Cut(ApiModel):
    """What a value of a FineTuneJob's maxLength would cut from the train rows."""

    max_length: int
    """The value."""
    rows: int
    """Rows that are longer."""
    tokens: int
    """Tokens that would be lost."""
    padding_share: float
    """Share of padding without packing."""


class StagedTokenizer(ApiModel):
    """The base model whose tokenizer counts."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""
    stage: Word
    """Names the spec.tokenizer that was staged."""


class ReportReference(ApiModel):
    """The report of a reading: `kubectl finetune report dataset NAME` opens it."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored: report.html, statistics.json, dropped.jsonl.zst."""
