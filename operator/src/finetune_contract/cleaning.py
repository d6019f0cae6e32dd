"""Cleaning a dataset: what is asked of the preparing pod, and what it found and measured."""

from enum import StrEnum

from finetune_contract.base import Count, Document, Label

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Values of maxLength for which statistics say what would be cut."""


class Quality(StrEnum):
    """Rules that rows have to pass."""

    DISABLED = "Disabled"
    GOPHER = "Gopher"
    """Those of Rae et al. 2021 (https://arxiv.org/abs/2112.11446, appendix A) that hold in every language."""


class PersonalDataPolicy(StrEnum):
    """What becomes of rows with personal data."""

    IGNORE = "Ignore"
    REPORT = "Report"
    REDACT = "Redact"
    DROP_ROW = "DropRow"
    FAIL = "Fail"


class PersonalDataKind(StrEnum):
    """What the recognisers know."""

    EMAIL = "Email"
    PHONE = "Phone"
    IBAN = "IBAN"
    CREDIT_CARD = "CreditCard"
    IP_ADDRESS = "IPAddress"
    NATIONAL_ID = "NationalID"
    SECRET = "Secret"  # noqa: S105 - the kind's name, not a secret


class Filters(Document):
    """Rows that stay; None: no limit."""

    min_tokens: int | None = None
    max_tokens: int | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    quality: Quality = Quality.DISABLED


class CleaningPlan(Document):
    """What is done to rows beside the removal of duplicates."""

    strip_instructions: bool = False
    """Cut off what all prompts begin with."""
    filters: Filters = Filters()
    personal_data: PersonalDataPolicy = PersonalDataPolicy.IGNORE
    regions: tuple[str, ...] = ()
    """Countries (ISO 3166-1 alpha-2) whose telephone numbers are found without a country code, too."""
    decontaminate_ngram: int | None = None
    """Words of a run that a train row must not share with a held-out row."""


class ChangeReason(StrEnum):
    """Why a row is in the revision otherwise than it was read."""

    INSTRUCTION_STRIPPED = "InstructionStripped"
    PERSONAL_DATA_REDACTED = "PersonalDataRedacted"
    MOVED_TO_FILL_SPLIT = "MovedToFillSplit"
    """Its own place was in another split, which keeps enough rows without it."""


class Changed(Document):
    """Rows that were changed or moved, by reason."""

    reason: ChangeReason
    rows: Count


class Found(Document):
    """Personal data of one kind."""

    kind: PersonalDataKind
    rows: Count
    """Rows that have some."""
    count: Count


class TokenCounts(Document):
    """Tokens of a split's rows, as the base model's tokenizer and chat template make them."""

    total: Count
    p50: Count
    p95: Count
    p99: Count
    max: Count
    supervised: Count
    """Tokens that the loss is on."""


class Truncation(Document):
    """What one value of maxLength would do to the train split."""

    max_length: Count
    rows: Count
    """Rows that would be cut."""
    tokens: Count
    """Tokens that would be lost, those of rows with nothing left to learn among them."""
    padding_share: float
    """Share of padding without packing, in batches of eight rows as they come."""


class LabelCount(Document):
    """Rows of one label."""

    label: Label
    rows: Count
