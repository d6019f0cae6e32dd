"""Token ids to text, one token at a time: half characters and possible stop sequences are held back."""

from collections.abc import Callable

Decode = Callable[[list[int]], str]

_HALF_CHARACTER = "\ufffd"
"""What tokenizers decode the first bytes of a character to."""


class AnswerText:
    """The growing text of one answer."""

    def __init__(self, decode: Decode, stop: tuple[str, ...] = (), *, keeps_stop: bool = False) -> None:
        self._decode = decode
        self._stop = stop
        self._keeps_stop = keeps_stop
        self._ids: list[int] = []
        self._context = 0  # ids before this one never change how later ids decode
        self._read = 0  # ids before this one are in `text`
        self._known = 0  # characters that the ids from `_context` to `_read` decode to
        self._sent = 0
        self.text = ""
        """All that was decoded so far, without a stop sequence."""

    def add(self, token: int) -> bool:
        """Take the next token; whether a stop sequence is now complete."""
        self._ids.append(token)
        # A tokenizer decodes a token differently at the start of a text (a leading space is lost), so the tokens
        # before it come along and their text is cut off again.
        grown = self._decode(self._ids[self._context :])
        if grown.endswith(_HALF_CHARACTER):
            return False
        before = len(self.text)
        self.text += grown[self._known :]
        self._context, self._read = self._read, len(self._ids)
        self._known = len(self._decode(self._ids[self._context :]))
        return self._cut_at_stop(before)

    def take(self, *, is_last: bool) -> str:
        """The text that is certain and was not taken before."""
        if is_last:
            self._flush_half_character()
        end = len(self.text) if is_last else len(self.text) - self._possible_stop()
        taken = self.text[self._sent : end]
        self._sent = max(self._sent, end)
        return taken

    def _cut_at_stop(self, before: int) -> bool:
        """Cut the text at the earliest stop sequence that ends after `before`."""
        found = [(self.text.find(stop, max(0, before - len(stop) + 1)), stop) for stop in self._stop]
        hits = [(at, stop) for at, stop in found if at >= 0]
        if not hits:
            return False
        at, stop = min(hits)
        self.text = self.text[: at + len(stop) if self._keeps_stop else at]
        self._read = len(self._ids)
        self._stop = ()
        return True

    def _possible_stop(self) -> int:
        """Length of the longest end of the text that a stop sequence could begin with."""
        lengths = (size for stop in self._stop for size in range(1, len(stop)) if self.text.endswith(stop[:size]))
        return max(lengths, default=0)

    def _flush_half_character(self) -> None:
        if self._read < len(self._ids):
            self.text += self._decode(self._ids[self._context :])[self._known :]
            self._read = len(self._ids)
