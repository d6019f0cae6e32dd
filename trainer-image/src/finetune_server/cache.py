"""transformers' key-value cache for rows that come and go between two tokens.

transformers' own layers drop rows (`batch_select_indices`) but take none, and copy everything for each token. This is
theirs with room to grow, made of the layers that prompts were read into. Caches that are not plain attention (sliding
windows, recurrent states) stay as transformers made them: their rows leave, and nobody joins before they are done.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Tokens that a layer has room for when it is made, and again when that is full."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """A DynamicLayer that writes a token's keys and values behind the others instead of copying all of them."""

    def __init__(self, pieces: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put rows below one another, aligned at their last token.

        Args:
            pieces: Keys and values, each (rows, heads, tokens, size); rows and tokens may differ between pieces.
        """
        super().__init__()
        keys, values = zip(*pieces, strict=True)
        self.dtype, self.device, self.is_initialized = keys[0].dtype, keys[0].device, True
        self._key_room, self.keys = _with_room(keys)
        self._value_room, self.values = _with_room(values)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: object,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add (rows, heads, new tokens, size) to each; all there is then."""
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > self._key_room.shape[-2]:
            self._key_room, _ = _with_room([self.keys], end - begin)
            self._value_room, _ = _with_room([self.values], end - begin)
        self._key_room[:, :, begin:end] = key_states
        self._value_room[:, :, begin:end] = value_states
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values


def _with_room(pieces: Sequence[torch.Tensor], least: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """One tensor with room for tokens behind all pieces, and the part of it that is theirs."""
    rows, tokens = sum(len(piece) for piece in pieces), max(piece.shape[-2] for piece in pieces)
    _, heads, _, size = pieces[0].shape
    # Zeros, because what a mask hides is multiplied all the same and has to be a number.
    room = pieces[0].new_zeros(rows, heads, tokens + max(least, _ROOM), size)
    first = 0
    for piece in pieces:
        room[first : first + len(piece), :, tokens - piece.shape[-2] : tokens] = piece
        first += len(piece)
    return room, room[:, :, :tokens]


def can_grow(cache: Any) -> bool:  # noqa: ANN401 - transformers has no types
    """Whether rows can join a cache: plain attention in every layer, in the form that every model gets by itself."""
    return type(cache) is DynamicCache and all(type(layer) in (DynamicLayer, GrowingLayer) for layer in cache.layers)


def joined(running: Any, new: Any) -> Any:  # noqa: ANN401
    """One cache with the rows of both, aligned at their last token; neither is touched."""
    whole = DynamicCache()
    whole.layers = [
        # Layers that use another layer's keys and values have none of their own.
        GrowingLayer([(one.keys, one.values), (other.keys, other.values)]) if one.is_initialized else DynamicLayer()
        for one, other in zip(running.layers, new.layers, strict=True)
    ]
    return whole


def keep(cache: Any, rows: torch.Tensor | slice, first: int = 0) -> None:  # noqa: ANN401
    """Leave only some rows in a cache that can grow, without the tokens before `first`, and give them room.

    Layer by layer, so that no more than one of them is in memory twice.
    """
    for index, layer in enumerate(cache.layers):
        if layer.is_initialized:
            cache.layers[index] = GrowingLayer([(layer.keys[rows, :, first:], layer.values[rows, :, first:])])


def copies(cache: Any, rows: int) -> Any:  # noqa: ANN401
    """A cache that can grow, of one row, for so many rows; what is added to it leaves the one row as it is."""
    whole = DynamicCache()
    whole.layers = [DynamicLayer() for _ in cache.layers]
    for mine, layer in zip(whole.layers, cache.layers, strict=True):
        if layer.is_initialized:
            mine.lazy_initialization(layer.keys, layer.values)
            mine.keys, mine.values = (each.expand(rows, -1, -1, -1) for each in (layer.keys, layer.values))
    return whole


def put_padding_first(cache: Any, begun: int, padding: torch.Tensor) -> None:  # noqa: ANN401
    """Bring the padding that stands behind the first `begun` tokens of each row before them.

    Args:
        cache: One that can grow.
        begun: Tokens.
        padding: How much each row has, (rows, 1).
    """
    columns = torch.arange(begun + int(padding.max()), device=padding.device)
    # At padding any number does.
    order = torch.where(columns < begun + padding, (columns - padding).clamp(min=0), columns)[:, None, :, None]
    for layer in cache.layers:
        if layer.is_initialized:
            for each in (layer.keys, layer.values):
                first = each[:, :, : len(columns)]
                first.copy_(first.gather(2, order.expand_as(first)))
