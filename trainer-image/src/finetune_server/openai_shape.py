"""OpenAI's answers: one class per route says how tokens become a choice."""

from collections.abc import Sequence
from typing import Any, ClassVar

from finetune_server.requests import Alternative, FinishReason, Token

_FINISH = {FinishReason.LENGTH: "length", FinishReason.END_TOKEN: "stop", FinishReason.STOP_SEQUENCE: "stop"}


def usage(prompt: int, generated: int) -> dict[str, int]:
    """The token counts of one request."""
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


class Shape:
    """How one route writes its choices."""

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, *, logprobs: bool) -> None:
        self.logprobs = logprobs

    def opening(self) -> list[dict[str, Any]]:
        """Choices that a stream begins with."""
        return []

    def choice(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """The finished answer."""
        raise NotImplementedError

    def delta(self, token: Token) -> dict[str, Any]:
        """What a stream says about one token."""
        raise NotImplementedError

    @staticmethod
    def finish(token: Token) -> str | None:
        """Why the answer ended, if it did."""
        return _FINISH[token.finish] if token.finish else None


class Completion(Shape):
    """`/v1/completions`, with the legacy shape of logprobs."""

    prefix = "cmpl"
    kind = "text_completion"
    chunk_kind = "text_completion"

    def choice(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Text, and per-token lists in the legacy shape."""
        return {
            "index": 0,
            "text": "".join(token.text for token in tokens),
            "logprobs": self._logprobs(tokens),
            "finish_reason": self.finish(tokens[-1]),
        }

    def delta(self, token: Token) -> dict[str, Any]:
        """The same shape for one token."""
        return self.choice([token])

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {
            "tokens": [token.piece for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{one.piece: one.logprob for one in token.top} for token in tokens],
            "text_offset": [token.offset for token in tokens],
        }


class Chat(Shape):
    """`/v1/chat/completions`."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def opening(self) -> list[dict[str, Any]]:
        """The role comes before any text."""
        return [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]

    def choice(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """A message."""
        return {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(token.text for token in tokens)},
            "logprobs": self._logprobs(tokens),
            "finish_reason": self.finish(tokens[-1]),
        }

    def delta(self, token: Token) -> dict[str, Any]:
        """What to append to the message."""
        return {
            "index": 0,
            "delta": {"content": token.text} if token.text else {},
            "logprobs": self._logprobs([token]),
            "finish_reason": self.finish(token),
        }

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": [_entry(token) | {"top_logprobs": [_entry(one) for one in token.top]} for token in tokens]}


def _entry(token: Token | Alternative) -> dict[str, Any]:
    return {"token": token.piece, "logprob": token.logprob, "bytes": list(token.piece.encode())}
