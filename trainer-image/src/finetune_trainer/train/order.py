"""Which sequences each optimiser step sees, and which rank computes which of them.

The order is drawn once per epoch and cut into global batches, and each of those into forward passes; only then are the
passes dealt to the ranks. So a step sees the same sequences, in the same forward passes, however many ranks there are.
"""

import math
from collections.abc import Iterator

import torch

from finetune_trainer.train.batching import BatchPlan
from finetune_trainer.train.ranks import Ranks


class GlobalBatches:
    """A batch sampler: this rank's forward passes, as indices of sequences.

    Every rank has the same number of passes in every step, as collective operations need: one that has none left
    computes the sequence `blank`, whose loss is on no token.
    """

    def __init__(self, sequences: int, global_batch: int, batches: BatchPlan, ranks: Ranks, seed: int) -> None:
        """Take the number of sequences; `sequences` itself is the index of the blank one."""
        self.blank = sequences
        self._global_batch = global_batch
        self._batches = batches
        self._ranks = ranks
        self._seed = seed
        self._epoch = 0
        # transformers looks here for whom to tell the epoch, through whatever accelerate wraps around a sampler.
        self.batch_sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the order follows from it and the seed."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Forward passes of one rank in one epoch."""
        whole, rest = divmod(self.blank, self._global_batch)
        return whole * self._passes(self._global_batch) + self._passes(rest)

    def __iter__(self) -> Iterator[list[int]]:
        """One epoch."""
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order = torch.randperm(self.blank, generator=generator).tolist()
        micro, rank = self._batches.micro, self._ranks.rank
        for start in range(0, self.blank, self._global_batch):
            step = order[start : start + self._global_batch]
            passes = self._passes(len(step))
            for number in range(rank * passes, (rank + 1) * passes):
                yield step[number * micro : (number + 1) * micro] or [self.blank]

    def shares(self, step: int) -> list[float]:
        """What part of an optimiser step's sequences is in each of this rank's passes; none is in a blank one.

        Args:
            step: Optimiser steps that were made before it, over all epochs.
        """
        start = step % max(1, math.ceil(self.blank / self._global_batch)) * self._global_batch
        size = min(self._global_batch, self.blank - start)
        passes, micro = self._passes(size), self._batches.micro
        first = self._ranks.rank * passes
        return [min(micro, max(0, size - number * micro)) / size for number in range(first, first + passes)]

    def _passes(self, sequences: int) -> int:
        """Forward passes per rank for one step of so many sequences."""
        return math.ceil(math.ceil(sequences / self._batches.micro) / self._ranks.count)
