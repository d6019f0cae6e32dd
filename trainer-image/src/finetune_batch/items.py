"""What an input is read as: one item for every row, good or bad."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from finetune_contract.base import Sha256
from finetune_server.model import LanguageModel


@dataclass(frozen=True)
class Fault:
    """Why a row has no answer."""

    code: str
    """A word for programs."""
    message: str
    """A sentence for people, naming the field."""
    param: str | None = None
    status: int | None = None
    """The HTTP status that a server would have answered; None: the line is no request at all."""


@dataclass(frozen=True)
class Item:
    """One row of the input."""

    number: int
    """From 0, over the whole input."""
    place: str
    """Where it is, for people: `requests.jsonl line 17`."""
    custom_id: str | None = None
    url: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    prompt: list[int] | None = None
    """Token ids, where they are not the body's to say."""
    fault: Fault | None = None
    """The line is no request."""


class Input(Protocol):
    """An input that was read once and can be read again from any row."""

    rows: int
    digest: Sha256
    faults: int
    """Rows that are known to have no answer, before a model is loaded."""
    first_fault: Item | None

    def items(self, first: int, count: int, model: LanguageModel) -> Iterator[Item]:
        """Some rows in their order."""
