"""One batch from prompts to last tokens: rows mix adapters and sampling settings, and leave when they are done."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

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


def decode(model: LanguageModel, rows: Sequence[Row]) -> Iterator[list[tuple[Row, Token]]]:
    """Answer rows together, yielding after each forward pass what every row got."""
    live = [row for row in rows if not row.is_done]
    if not live:
        return
    ids, mask, positions = _left_padded([row.request.prompt for row in live], model.device)
    cache: Any = None
    while True:
        logits, cache = model.forward(ids, mask, positions, [row.request.adapter for row in live], cache)
        yield _advance(live, logits)
        keep = [index for index, row in enumerate(live) if not row.is_done]
        if not keep:
            return
        if len(keep) < len(live):
            live = [live[index] for index in keep]
            kept = torch.tensor(keep, device=model.device)
            cache.batch_select_indices(kept)
            mask, positions = mask[kept], positions[kept]
        ids = torch.tensor([[row.last.id] for row in live if row.last], device=model.device)
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        positions = positions[:, -1:] + 1


@torch.inference_mode()
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


def _left_padded(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and positions, each (rows, longest prompt).

    Padding is on the left so that every row's next token is in the last column. Positions count from a row's first
    real token, which makes its numbers those of the row alone; what stands at padding is masked, so any valid id does.
    """
    longest = max(len(prompt) for prompt in prompts)
    padding = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)], device=device)
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)
