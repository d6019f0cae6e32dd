"""Rows that are answered together: they mix adapters and sampling settings, join when they come, leave when done."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from finetune_server.cache import can_grow, copies, joined, keep, put_padding_first
from finetune_server.model import LanguageModel
from finetune_server.requests import Alternative, FinishReason, GenerationRequest, Token
from finetune_server.sampling import choose, generator_for
from finetune_server.text import AnswerText


class Row:
    """One answer in the making."""

    def __init__(self, request: GenerationRequest, model: LanguageModel) -> None:
        self.request = request
        self.is_cancelled = False
        """Set from outside when nobody waits any more: the row leaves before the next token."""
        self.generated = 0
        self.last: Token | None = None
        self._model = model
        self._random = generator_for(request.sampling)
        self._text = AnswerText(model.decode, request.stop, keeps_stop=request.keeps_stop)

    @property
    def is_done(self) -> bool:
        """Whether no further token is wanted."""
        return self.is_cancelled or (self.last is not None and self.last.finish is not None)

    def choose(self, logits: torch.Tensor, best: int) -> int:
        """The next token, from logits (vocabulary,) in fp32, of which `best` is the highest."""
        return best if self.request.sampling.is_greedy else choose(logits, self.request.sampling, self._random)

    def advance(self, chosen: int, logprob: float, logprobs: torch.Tensor) -> Token:
        """Take the next token; `logprobs` are (vocabulary,) in fp32."""
        # One NaN or infinity makes every log-probability NaN: such an answer fails alone, not with its batch.
        is_sound = not math.isnan(logprob)
        self.generated += 1
        offset = len(self._text.text)
        # The end token has no text; everything else may complete a stop sequence.
        is_end = chosen in self._model.end_tokens
        finish = self._finish(is_end=is_end, is_stopped=not is_end and self._text.add(chosen))
        if not is_sound:
            finish = FinishReason.FAILED
        self.last = Token(
            id=chosen,
            piece=self._model.piece(chosen),
            text=self._text.take(is_last=finish is not None),
            offset=offset,
            logprob=logprob,
            special=chosen in self._model.special_tokens,
            top=self._alternatives(logprobs),
            finish=finish,
        )
        return self.last

    def _finish(self, *, is_end: bool, is_stopped: bool) -> FinishReason | None:
        if is_end:
            return FinishReason.END_TOKEN
        if is_stopped:
            return FinishReason.STOP_SEQUENCE
        return FinishReason.LENGTH if self.generated >= self.request.max_tokens else None

    def _alternatives(self, logprobs: torch.Tensor) -> tuple[Alternative, ...]:
        if not self.request.top_logprobs:
            return ()
        best = logprobs.topk(min(self.request.top_logprobs, logprobs.numel()))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(
            Alternative(token, self._model.piece(token), logprob, token in self._model.special_tokens)
            for token, logprob in pairs
        )


class Opened(NamedTuple):
    """What the prompts of several rows begin with, read once for all of them."""

    adapter: str
    """It was read with, and all rows have."""
    ids: list[int]
    cache: Any
    """Its keys and values, of one row."""

    def begins(self, row: Row) -> bool:
        """Whether a row can go on from here, with at least one token of its own."""
        asked, size = row.request, len(self.ids)
        return asked.adapter == self.adapter and len(asked.prompt) > size and asked.prompt[:size] == self.ids


def read_opening(model: LanguageModel, ids: list[int], adapter: str) -> Opened | None:
    """Read what prompts of one adapter begin with; None where rows cannot go on from it."""
    if not model.takes_positions:
        return None
    columns = torch.arange(len(ids), device=model.device)[None]
    whole = torch.tensor([ids], device=model.device)
    _, cache = model.forward(whole, torch.ones_like(whole), columns, [adapter], None)
    return Opened(adapter, ids, cache) if can_grow(cache) else None


class Batch:
    """Rows that are answered together: they join and leave between two tokens.

    Rows are as wide as the longest of them. Shorter ones are padded on the left, so that every row's next token is in
    the last column. Positions count from a row's first real token, which makes its numbers those of the row alone.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.rows: list[Row] = []
        self.device = model.device
        self._model = model
        self._lengths: list[int] = []
        """Tokens of each row that the cache holds."""
        self._width = 0
        """Tokens that it holds with padding: at least those of the longest row."""
        self._cache: Any = None

    @property
    def is_open(self) -> bool:
        """Whether rows can join now; some architectures' caches must be empty first."""
        return not self.rows or can_grow(self._cache)

    @torch.inference_mode()
    def join(self, rows: Sequence[Row], opened: Opened | None = None) -> list[tuple[Row, Token]]:
        """Read the prompts of new rows, and answer each one's first token; when it raises, the batch is as before.

        Args:
            rows: Those that nobody waits for any more are left out.
            opened: What all their prompts begin with, where that was read before.
        """
        rows = [row for row in rows if not row.is_done]
        if not rows:
            return []
        if opened and not all(map(opened.begins, rows)):
            raise ValueError("a row's prompt or adapter is not what was read before")
        begun = len(opened.ids) if opened else 0
        lengths = [len(row.request.prompt) for row in rows]
        longest = max(lengths)
        ids = [[0] * (longest - len(row.request.prompt)) + row.request.prompt[begun:] for row in rows]
        cache = copies(opened.cache, len(rows)) if opened else None
        logits, cache = self._forward(rows, ids, lengths, longest, cache, begun)
        answers = _advance(rows, logits)
        if self.rows:
            cache = joined(self._cache, cache)
        elif can_grow(cache):
            keep(cache, slice(None))
        self._width = max(self._width, longest) if self.rows else longest
        self.rows, self._lengths, self._cache = [*self.rows, *rows], [*self._lengths, *lengths], cache
        self._drop_done()
        return answers

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, Token]]:
        """The next token of every row that somebody still waits for."""
        self._drop_done()
        if not self.rows:
            return []
        self._lengths, self._width = [length + 1 for length in self._lengths], self._width + 1
        ids = [[row.last.id] for row in self.rows if row.last]
        logits, self._cache = self._forward(self.rows, ids, self._lengths, self._width, self._cache)
        answers = _advance(self.rows, logits)
        self._drop_done()
        return answers

    def _forward(
        self,
        rows: Sequence[Row],
        ids: list[list[int]],
        lengths: list[int],
        width: int,
        cache: Any,  # noqa: ANN401
        begun: int = 0,
    ) -> tuple[torch.Tensor, Any]:
        """Logits (rows, vocabulary) after `ids` (rows, new); rows then have `lengths` tokens in `width` columns.

        The first `begun` of these are in the cache; padding stands behind them, and comes first afterwards.
        """
        device, new = self._model.device, len(ids[0])
        columns = torch.arange(width, device=device)
        padding = torch.tensor([[width - length] for length in lengths], device=device)
        mask = (columns >= padding).long()
        if begun:
            mask = pad(mask[:, : width - begun], (begun, 0), value=1)
        # What stands at padding is masked, so that any valid position does.
        positions = (columns[width - new :] - padding).clamp(min=0)
        adapters = [row.request.adapter for row in rows]
        logits, cache = self._model.forward(torch.tensor(ids, device=device), mask, positions, adapters, cache)
        if begun:
            put_padding_first(cache, begun, padding)
        return logits, cache

    def _drop_done(self) -> None:
        left = [index for index, row in enumerate(self.rows) if not row.is_done]
        if len(left) == len(self.rows):
            return
        self.rows, self._lengths = [self.rows[index] for index in left], [self._lengths[index] for index in left]
        if not left:
            self._cache = None
            return
        kept = torch.tensor(left, device=self._model.device)
        if can_grow(self._cache):
            longest = max(self._lengths)
            keep(self._cache, kept, self._width - longest)
            self._width = longest
        else:
            self._cache.batch_select_indices(kept)


def decode(
    model: LanguageModel, rows: Sequence[Row], opened: Opened | None = None
) -> Iterator[list[tuple[Row, Token]]]:
    """Answer rows together, which may have been begun, yielding after each forward pass what every row got."""
    batch = Batch(model)
    answers = batch.join(rows, opened)
    while answers:
        yield answers
        answers = batch.step()


def _advance(rows: Sequence[Row], logits: torch.Tensor) -> list[tuple[Row, Token]]:
    """Every row's next token; whatever can be is computed for all rows at once."""
    logprobs = logits.log_softmax(-1)
    is_sound = (~logprobs[:, 0].isnan()).tolist()
    best = logits.argmax(-1).tolist()
    # Of numbers that are not finite nothing can be chosen; any token does, the row fails with its NaN.
    chosen = [row.choose(logits[index], best[index]) if is_sound[index] else 0 for index, row in enumerate(rows)]
    picked = logprobs.gather(1, torch.tensor(chosen, device=logprobs.device)[:, None])[:, 0].tolist()
    return [
        (row, row.advance(chosen[index], picked[index], logprobs[index]))
        for index, row in enumerate(rows)
        if not row.is_cancelled
    ]
