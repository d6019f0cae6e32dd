"""Tokens of rows as training will make them: the base model's tokenizer and chat template, the trainer's renderer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.train.render import Renderer, Tokens
from finetune_trainer.train.rows import answered


class TokenCounts(NamedTuple):
    """One row's."""

    tokens: int
    supervised: int
    first: int
    """Place of the first token to learn that something before it predicts; `tokens` where there is none."""


class Tokenizer:
    """A base model's tokenizer, for the rows of one format."""

    def __init__(self, directory: Path, row_format: RowFormat) -> None:
        """Load it from a model's directory.

        Raises:
            FineTuneError: TokenizerMismatch when rows of the format cannot be rendered with it.
        """
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except (OSError, ValueError) as error:
            raise FineTuneError(
                FailureReason.TOKENIZER_MISMATCH, f"spec.tokenizer: its tokenizer cannot be read: {error}"
            ) from error
        self._format = row_format
        self._renderers: dict[RowFormat, Renderer] = {}

    def tokens(self, values: Sequence[dict[str, Any]]) -> list[Tokens]:
        """Rows as training tokens."""
        rows = [answered(dict(value)) for value in values]
        return self._renderer(rows[0]).tokens(rows) if rows else []

    def counts(self, values: Sequence[dict[str, Any]]) -> list[TokenCounts]:
        """How many tokens rows have."""
        return [counts_of(tokens) for tokens in self.tokens(values)]

    def pieces(self, tokens: Tokens) -> list[tuple[str, bool]]:
        """The text of each run of tokens that are learnt, or are not."""
        pieces: list[tuple[list[int], bool]] = []
        for token, is_learnt in zip(tokens.ids, tokens.supervised, strict=True):
            if not pieces or pieces[-1][1] is not is_learnt:
                pieces.append(([], is_learnt))
            pieces[-1][0].append(token)
        return [(self._tokenizer.decode(ids), is_learnt) for ids, is_learnt in pieces]

    def _renderer(self, row: dict[str, Any]) -> Renderer:
        """Rows with prompts of their own are conversations or plain text, as the trainer reads them."""
        row_format = self._format
        if row_format not in (RowFormat.TEXT, RowFormat.CLASSIFICATION):
            row_format = RowFormat.MESSAGES if "messages" in row else RowFormat.PROMPT_COMPLETION
        if row_format not in self._renderers:
            self._renderers[row_format] = Renderer(self._tokenizer, row_format)
        return self._renderers[row_format]


def counts_of(tokens: Tokens) -> TokenCounts:
    """One row's."""
    # Nothing before a row's first token predicts it.
    learnt = [place for place, is_learnt in enumerate(tokens.supervised) if is_learnt and place]
    return TokenCounts(len(tokens.ids), len(learnt), learnt[0] if learnt else len(tokens.ids))
