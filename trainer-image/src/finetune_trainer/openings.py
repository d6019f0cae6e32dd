"""Prompts that begin alike: an instruction before every row, or solved rows before many, are read once for all of them.

What was read is transformers' own cache of keys and values; rows go on from copies of it.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import DynamicLayer

_FEWEST_ROWS = 8
"""Prompts that have to begin alike; with fewer, batches get so small that writing costs more than reading saves."""

_FEWEST_TOKENS = 64
"""Tokens that they have to share: more than a chat template's."""

_LIKE = 0.75
"""A prompt that shares less than this part of what others share begins otherwise."""


class Opening(NamedTuple):
    """How some prompts begin."""

    rows: list[int]
    """Which of the prompts they are."""
    ids: list[int]
    """Every one of them has a token of its own behind these; empty where sharing would not pay."""


def openings(prompts: Sequence[Sequence[int]], fewest_rows: int = _FEWEST_ROWS) -> list[Opening]:
    """Prompts by what they begin with; each of them is in one opening, and what fewer rows share is not shared."""
    fewest_rows = max(fewest_rows, _FEWEST_ROWS)
    # Sorted, those that share most are neighbours.
    order = sorted((row for row in range(len(prompts)) if prompts[row]), key=lambda row: list(prompts[row]))
    found: list[tuple[list[int], int]] = []
    for row in order:
        if found:
            rows, size = found[-1]
            alike = _alike(prompts[rows[0]], prompts[row])
            if alike >= _FEWEST_TOKENS and (len(rows) == 1 or alike >= _LIKE * size):
                found[-1] = [*rows, row], alike
                continue
        found.append(([row], 0))
    shared = [Opening(sorted(rows), list(prompts[rows[0]][:size])) for rows, size in found if len(rows) >= fewest_rows]
    others = set(range(len(prompts))) - {row for each in shared for row in each.rows}
    return [*shared, Opening(sorted(others), [])] if others else shared


def tokens_read(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of the prompts, those that are read once counted once."""
    return sum(map(len, prompts)) - sum(len(each.ids) * (len(each.rows) - 1) for each in openings(prompts) if each.ids)


class Reader:
    """Reads an opening when the first batch needs it."""

    def __init__(self, model: Any, opening: Opening) -> None:  # noqa: ANN401 - transformers has no types
        self._model = model
        self._cache: Any = None
        self.ids = opening.ids if opening.ids and self._read(opening.ids) else []
        """What is read; nothing where the model cannot go on from it."""

    def cache(self, rows: int) -> Any:  # noqa: ANN401
        """Keys and values of the opening for so many rows, to be changed at will; None without an opening."""
        whole = copy.deepcopy(self._cache)
        if whole is not None:
            whole.batch_repeat_interleave(rows)
        return whole

    def _read(self, ids: list[int]) -> bool:
        if turns_by_length(self._model.config.get_text_config()):
            return False
        whole = torch.tensor([ids], device=self._model.device)
        cache = getattr(self._model(input_ids=whole, use_cache=True, logits_to_keep=1), "past_key_values", None)
        self._cache = cache if is_plain(cache) else None
        return self._cache is not None


def is_plain(cache: Any) -> bool:  # noqa: ANN401
    """Whether a cache holds every token as reading them anew would: some models let go of them, or have none."""
    layers = getattr(cache, "layers", ())
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def turns_by_length(config: Any) -> bool:  # noqa: ANN401
    """Whether keys are turned by other angles in a longer sequence, so that a prompt's keys do not fit what follows."""
    found = getattr(config, "rope_parameters", None) or {}
    kinds = [found, *(each for each in found.values() if isinstance(each, dict))]
    return any(str(each.get("rope_type")) in ("dynamic", "longrope") for each in kinds)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens at the beginning of both, at least one of each left out."""
    most = min(len(one), len(other)) - 1
    return next((at for at in range(most) if one[at] != other[at]), most)
