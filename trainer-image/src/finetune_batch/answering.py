"""A shard's requests through the model: batches of like length, as large as memory allows.

What many prompts begin with, such as an instruction before every row, is read once for all of a shard.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from finetune_batch.asking import Ask
from finetune_server.decoding import Opened, Row, decode, read_opening
from finetune_server.model import BASE, LanguageModel
from finetune_server.requests import Token
from finetune_trainer.openings import Opening, openings, turns_by_length

log = logging.getLogger(__name__)


class _Limits(NamedTuple):
    """How large a batch may be."""

    rows: int
    read: int
    """Tokens that are read or written, padding included: without those that were read before."""
    held: int
    """All tokens of its rows: what memory has to hold."""
    alike: int
    """Rows of a shard that have to begin alike, or half of them: they are answered apart from others."""


_CPU = _Limits(64, 4096, 4 * 4096, 8)
"""Caches are small there, and each row has its price, with however many others."""

_GPU = _Limits(256, 65536, 65536, 128)
"""Halved whenever it runs out of memory. Small batches take as long as large ones: there shall not be many more."""


class Batches:
    """How much is answered at once; learns from running out of memory."""

    def __init__(self, model: LanguageModel) -> None:
        """Begin with what fits most models on the model's device."""
        self._model = model
        self.limits = _GPU if model.device.type == "cuda" else _CPU
        self.shares = not turns_by_length(model.config.get_text_config()) and bool(read_opening(model, [0], BASE))
        """Whether rows go on from what was read before; some architectures' caches let go of it."""

    def answer(self, asks: Sequence[Ask]) -> Iterator[tuple[int, list[Token]]]:
        """The tokens of each request, in the order in which they are done, with its place in `asks`."""
        # The longest first: memory runs out at once or never.
        lengths = [len(ask.request.prompt) + ask.request.max_tokens for ask in asks]
        for opening in sorted(self._openings(asks), key=lambda each: -max(lengths[row] for row in each.rows)):
            reader = _Reader(self._model, opening.ids, asks[opening.rows[0]].request.adapter)
            order = sorted(opening.rows, key=lambda at: -lengths[at])
            while order:
                held, most = lengths[order[0]], self.limits
                size = max(1, min(most.rows, most.read // (held - len(reader.ids)), most.held // held))
                batch = order[:size]
                answers = self._decoded([asks[at] for at in batch], reader)
                if answers is not None:
                    order = order[size:]
                    yield from zip(batch, answers, strict=True)

    def _openings(self, asks: Sequence[Ask]) -> list[Opening]:
        prompts = [ask.request.prompt for ask in asks]
        if not self.shares:
            return [Opening(list(range(len(asks))), [])] if asks else []
        return openings(prompts, min(self.limits.alike, len(asks) // 2))

    def _decoded(self, asks: Sequence[Ask], reader: "_Reader") -> list[list[Token]] | None:
        """The answers of one batch; None where memory ran out and less is to be tried."""
        rows = [Row(ask.request, self._model) for ask in asks]
        answers: dict[int, list[Token]] = {id(row): [] for row in rows}
        try:
            with torch.inference_mode():
                for step in decode(self._model, rows, reader.opened()):
                    for row, token in step:
                        answers[id(row)].append(token)
        except torch.OutOfMemoryError:
            if len(rows) == 1 and not reader.ids:
                raise
        else:
            return [answers[id(row)] for row in rows]
        # Outside of `except`: the traceback would keep the tensors of the batch alive.
        if reader.ids and (len(rows) == 1 or not reader.is_read):
            reader.forget()
            log.warning("out of GPU memory; what prompts begin with is read for each of them")
        else:
            most = self.limits
            self.limits = most._replace(rows=len(rows) // 2, read=max(1, most.read // 2), held=max(1, most.held // 2))
            log.warning("out of GPU memory with %d rows at once; going on with %d", len(rows), self.limits.rows)
        torch.cuda.empty_cache()
        return None


class _Reader:
    """Reads what prompts begin with when the first batch needs it."""

    def __init__(self, model: LanguageModel, ids: list[int], adapter: str) -> None:
        self._model = model
        self._adapter = adapter
        self._opened: Opened | None = None
        self.ids = ids
        """What all of them begin with; empty: nothing."""

    @property
    def is_read(self) -> bool:
        """Whether memory has sufficed for it."""
        return self._opened is not None

    def opened(self) -> Opened | None:
        """What was read; None where they are read as they are."""
        if self.ids and self._opened is None:
            self._opened = read_opening(self._model, self.ids, self._adapter)
        return self._opened

    def forget(self) -> None:
        """Leave its memory to the rows."""
        self.ids, self._opened = [], None
