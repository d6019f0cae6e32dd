"""What the routes ask of the engine, and what it answers, free of any wire format."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from finetune_server.sampling import Sampling


class FinishReason(StrEnum):
    """Why an answer ended."""

    LENGTH = "length"
    END_TOKEN = "end_token"  # noqa: S105 - not a secret
    STOP_SEQUENCE = "stop_sequence"
    FAILED = "failed"


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt for one model."""

    model: str
    """The name the client gave, for metrics and answers."""
    adapter: str
    """peft's key of the adapter, or BASE."""
    prompt: list[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    keeps_stop: bool = False
    """Whether the stop sequence is part of the answer: TGI says yes, OpenAI no."""
    top_logprobs: int = 0
    """How many alternatives each token is reported with."""


class Alternative(NamedTuple):
    """A token that could have been chosen at a position."""

    id: int
    piece: str
    logprob: float
    special: bool


class Token(NamedTuple):
    """One generated token, and the text that became certain with it."""

    id: int
    piece: str
    """The token alone, special tokens spelled out."""
    text: str
    """What to send now: empty while the token may belong to a stop sequence or half a character."""
    offset: int
    """Characters of the answer before this token."""
    logprob: float
    """Natural logarithm of its probability, before temperature, top-k and top-p."""
    special: bool
    top: tuple[Alternative, ...] = ()
    finish: FinishReason | None = None
    """Set on the last token of an answer."""
