"""How likely a model finds the right answers to prompts that it has just answered: it has not forgotten the prompts.

To read a prompt for its loss costs as much again as to read it for its answer; with solved rows before every question
that is most of an evaluation. Generation leaves the prompts' keys and values in its cache; right answers go on from it.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.evaluate.generate import BATCH_LOGITS, BATCH_TOKENS, Batch, Ids, Loss, losses_from
from finetune_trainer.openings import is_plain, turns_by_length
from finetune_trainer.train.sequences import IGNORED

_BLOCK = 128
"""Tokens of an answer that are read at once; answers that end in a block are left out of the next."""


class References:
    """Reads right answers batch by batch, as the prompts are answered."""

    def __init__(self, model: Any, prompts: Sequence[Ids], sequences: Sequence[tuple[Ids, Ids]]) -> None:  # noqa: ANN401
        """Take what is read.

        Args:
            model: In evaluation mode.
            prompts: Token ids.
            sequences: (ids, labels) of each prompt and its right answer, labels not shifted.
        """
        self._model = model
        self._answers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for row, (prompt, (ids, labels)) in enumerate(zip(prompts, sequences, strict=True)):
            size = len(prompt)
            if size < len(ids) and list(ids[:size]) == list(prompt) and set(labels[:size]) == {IGNORED}:
                self._answers[row] = torch.tensor(list(ids[size:])), torch.tensor(list(labels[size:]))
        self._is_turned = turns_by_length(model.config.get_text_config())
        self._most_tokens = max(1, min(BATCH_TOKENS, BATCH_LOGITS // model.config.get_text_config().vocab_size))
        self.losses: dict[int, Loss] = {}
        """Of the rows that were read; those of all others have to be measured by themselves."""
        self.seconds = 0.0
        """What reading them took."""

    @torch.inference_mode()
    def read(self, batch: Batch) -> None:
        """Read the answers to a batch of prompts; its cache is of no use afterwards."""
        if self._is_turned or not is_plain(batch.cache):
            return
        places = [at for at, row in enumerate(batch.rows) if row in self._answers]
        if not places:
            return
        began = time.monotonic()
        # Longest first, so that those that go on are always the first ones.
        places.sort(key=lambda at: -len(self._answers[batch.rows[at]][0]))
        answers = [self._answers[batch.rows[at]] for at in places]
        order = torch.tensor(places, device=batch.ids.device)
        # The prompt's last token is read again: it predicts the answer's first.
        past = batch.ids.shape[1] - 1
        batch.cache.crop(past - batch.cache.get_seq_length())
        batch.cache.batch_select_indices(order)
        found = self._read(answers, batch.ids[order, past:], batch.mask[order, :past], batch.cache)
        self.losses |= {batch.rows[at]: loss for at, loss in zip(places, found, strict=True)}
        self.seconds += time.monotonic() - began

    def _read(
        self,
        answers: Sequence[tuple[torch.Tensor, torch.Tensor]],
        last: torch.Tensor,
        mask: torch.Tensor,
        cache: Any,  # noqa: ANN401
    ) -> list[Loss]:
        """The losses of answers, longest first, after what is in the cache.

        Args:
            answers: Token ids and labels of each.
            last: The token before each answer, rows x 1.
            mask: Which tokens in the cache are no padding, rows x tokens.
            cache: Of the prompts without their last tokens.
        """
        totals, counts = [0.0] * len(answers), [0] * len(answers)
        start, rows = 0, len(answers)
        while rows:
            size = max(1, min(_BLOCK, self._most_tokens // rows, len(answers[0][0]) - start))
            ids = _columns([ids for ids, _ in answers[:rows]], start, size, 0).to(last.device)
            labels = _columns([labels for _, labels in answers[:rows]], start, size, IGNORED).to(last.device)
            read = torch.ones(rows, start + size, dtype=mask.dtype, device=mask.device)
            logits = self._model(
                input_ids=torch.cat([last, ids[:, :-1]], 1),
                attention_mask=torch.cat([mask, read], 1),
                position_ids=mask.sum(1, keepdim=True) + torch.arange(start, start + size, device=mask.device),
                past_key_values=cache,
                use_cache=True,
            ).logits
            for row, loss in enumerate(losses_from(logits, labels)):
                totals[row] += loss.total
                counts[row] += loss.tokens
            start += size
            left = sum(len(answer) > start for answer, _ in answers)
            last, mask = ids[:left, -1:], mask[:left]
            if 0 < left < rows:
                cache.batch_select_indices(torch.arange(left, device=mask.device))
            rows = left
        return [Loss(total, count) for total, count in zip(totals, counts, strict=True)]


def _columns(rows: Sequence[torch.Tensor], start: int, size: int, fill: int) -> torch.Tensor:
    """A slice of each row as one tensor, rows x size, filled at their ends."""
    found = torch.full((len(rows), size), fill, dtype=torch.long)
    for at, row in enumerate(rows):
        part = row[start : start + size]
        found[at, : len(part)] = part
    return found
