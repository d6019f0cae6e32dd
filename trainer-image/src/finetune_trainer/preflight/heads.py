"""What a method makes of hidden states, as allocations: logits of some positions, in tiles, or one score a sequence."""

from enum import Enum, auto
from typing import Any

import torch

_HEAD_TOKENS, _HEAD_WORDS = 4096, 32768
"""The tile of logits that TRL computes at a time (trl/kernels/chunked_logprob.py, trl/trainer/utils.py)."""


class Head(Enum):
    """What is computed at the end of the model."""

    SUPERVISED = auto()
    """The loss of supervised tokens: all their logits at once on CPU (`train/trainer.py`), in tiles on a GPU."""
    TILED = auto()
    """Log-probabilities of tokens, in tiles everywhere: preferences and rewarded answers."""
    SCORE = auto()
    """One number a sequence: reward models."""


def loss_of(head: Head, hidden: Any, base: Any, supervised: float, *, on_gpu: bool) -> Any:  # noqa: ANN401 - a model
    """The loss of one pass.

    Args:
        head: What is computed.
        hidden: Of shape (1, tokens, width).
        base: The model without its adapter's wrapper.
        supervised: Share of the tokens that the loss is on.
        on_gpu: Whether logits come in tiles under SUPERVISED.
    """
    if head is Head.SCORE:
        return base.score(hidden).float().mean()
    weights = base.get_output_embeddings().weight
    if head is Head.SUPERVISED and not on_gpu:
        count = max(1, round(hidden.shape[1] * supervised))
        logits = torch.nn.functional.linear(hidden[0, :count], weights)
        wanted = torch.zeros((count,), dtype=torch.int64)
        return torch.nn.functional.cross_entropy(logits.float(), wanted)
    return _Head.apply(hidden, weights)  # type: ignore[no-untyped-call]


def look(head: Head, hidden: Any, base: Any) -> None:  # noqa: ANN401
    """The same without gradients: a reference's log-probabilities."""
    if head is not Head.SCORE:
        _tile(hidden, base.get_output_embeddings().weight)


class _Head(torch.autograd.Function):
    """Logits tile by tile, forward and again backward; the gradient of the head's weights is summed in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, head: Any) -> Any:  # noqa: ANN401
        ctx.save_for_backward(hidden, head)
        _tile(hidden, head)
        return hidden.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, _gradient: Any) -> Any:  # noqa: ANN401
        hidden, head = ctx.saved_tensors
        total = torch.empty_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        summed = torch.empty_like(hidden, dtype=torch.float32)
        _tile(hidden, head)
        return summed.to(hidden.dtype), None if total is None else total.to(head.dtype)


def _tile(hidden: Any, head: Any) -> None:  # noqa: ANN401
    shape = (min(hidden.shape[1], _HEAD_TOKENS), min(head.shape[0], _HEAD_WORDS))
    tile = hidden.new_empty(shape)
    probabilities = tile.float()
    del tile, probabilities
