"""How a global batch is cut: global = micro x accumulation x ranks, blank sequences not counted."""

import logging
import math
from dataclasses import dataclass

from finetune_contract.training import Hyperparameters

log = logging.getLogger(__name__)

CPU_TOKENS = 4096
"""Tokens per forward pass on CPU: activations of a small model stay near the caches; more was not faster."""

MOST_ON_CPU = 16
"""Sequences per forward pass on CPU."""

_BYTES_PER_ACTIVATION = 2
_KEPT_PER_LAYER = 34
"""Hidden-sized activations that one transformer layer keeps for the backward pass without recomputation
(Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", eq. 2, with flash attention).
"""
_MEMORY_SHARE = 0.6
"""Share of the free GPU memory that activations may take; the rest is for gradients, optimiser and fragmentation."""


@dataclass(frozen=True)
class BatchPlan:
    """Sequences per forward pass, and forward passes per optimiser step."""

    micro: int
    accumulation: int


def plan_batches(settings: Hyperparameters, ranks: int, most: int) -> BatchPlan:
    """Cut the global batch; the micro batch is the largest divisor that is allowed.

    Where the ranks do not divide the global batch, some compute blank sequences (`order`); there are at most as many
    ranks as sequences (`ranks.refuse_impossible_group`).

    Args:
        settings: `global_batch_size`, and `micro_batch_size` where the user wants one.
        ranks: Processes that train together.
        most: Sequences per forward pass that are known to fit.
    """
    per_rank = math.ceil(settings.global_batch_size / ranks)
    divided = per_rank if settings.global_batch_size % ranks == 0 else settings.global_batch_size
    limit = max(1, settings.micro_batch_size or most)
    micro = max(size for size in range(1, min(limit, per_rank) + 1) if divided % size == 0)
    if settings.micro_batch_size is not None and micro != settings.micro_batch_size:
        log.info("micro batch %d instead of %d, so that it divides %d", micro, settings.micro_batch_size, divided)
    return BatchPlan(micro, math.ceil(math.ceil(settings.global_batch_size / micro) / ranks))


def most_on_cpu(sequence_length: int) -> int:
    """Sequences per forward pass on CPU."""
    return max(1, min(MOST_ON_CPU, CPU_TOKENS // sequence_length))


def most_on_gpu(
    sequence_length: int, *, hidden: int, layers: int, vocabulary: int, free_bytes: int, recomputes: bool
) -> int:
    """Sequences per forward pass whose activations fit; an estimate that errs on the small side.

    Args:
        sequence_length: Tokens of a sequence.
        hidden: Width of the model.
        layers: Its transformer layers.
        vocabulary: Its tokens: one chunk of logits is held at a time, here counted as if for every token in bf16 / 8.
        free_bytes: GPU memory left with the weights loaded.
        recomputes: Whether layers are recomputed in the backward pass (activation checkpointing).
    """
    kept = layers + _KEPT_PER_LAYER if recomputes else layers * _KEPT_PER_LAYER
    per_token = hidden * kept * _BYTES_PER_ACTIVATION + vocabulary // 4
    return max(1, int(free_bytes * _MEMORY_SHARE / (per_token * sequence_length)))
