"""LoRA layers whose rows each have an adapter of their own: two matrix products, however many adapters there are.

peft's own mixed batch takes each adapter's rows out, multiplies them twice and puts them back, for every layer and
token: with eight adapters that is eight times the calls, and on small models calls are what takes the time. Here the
adapters of a layer lie side by side in one pair of matrices. A row goes through all of them, and what is not its own
is set to zero in between.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear

Layout = tuple[tuple[str, int], ...]
"""Which adapters a layer has, in the order in which they lie side by side, each with its rank."""


class Selection(NamedTuple):
    """What of a layer's matrices a batch needs."""

    ranks: slice | torch.Tensor
    foreign: torch.Tensor | None
    """(rows, 1, selected ranks): true where a rank is of another row's adapter; None when none is."""


class RowAdapters:
    """Which adapter each row of the running batch has; one for all layers of a model."""

    def __init__(self, device: torch.device) -> None:
        self.keys: tuple[str, ...] = ()
        self._device = device
        self._selections: dict[Layout, Selection | None] = {}

    def assign(self, keys: Sequence[str]) -> None:
        """Say what the rows of the next forward pass have."""
        if self.keys != (keys := tuple(keys)):
            self.keys = keys
            self._selections = {}

    def selection(self, layout: Layout) -> Selection | None:
        """What these rows need of layers with this layout; None: nothing, no row has an adapter there."""
        if layout not in self._selections:
            self._selections[layout] = self._select(layout)
        return self._selections[layout]

    def _select(self, layout: Layout) -> Selection | None:
        wanted = set(self.keys)
        owners: list[str] = []
        selected: list[int] = []
        at = 0
        for key, rank in layout:
            if key in wanted:
                selected += range(at, at + rank)
                owners += [key] * rank
            at += rank
        if not selected:
            return None
        first, end = selected[0], selected[-1] + 1
        ranks: slice | torch.Tensor = slice(first, end)
        if end - first > len(selected):
            # Copied for every token, and still cheaper than multiplying with what nobody needs.
            ranks = torch.tensor(selected, device=self._device)
        foreign = torch.tensor([[[owner != key for owner in owners]] for key in self.keys], device=self._device)
        return Selection(ranks, foreign if bool(foreign.any()) else None)


class MixedLinear(torch.nn.Module):
    """A linear layer with all its LoRA adapters."""

    def __init__(self, layer: LoraLinear, rows: RowAdapters) -> None:
        """Take over a peft layer's base and weights; the layer itself is not needed any more."""
        super().__init__()
        self.base_layer = layer.base_layer
        keys = list(layer.lora_A)
        self._rows = rows
        self._layout: Layout = tuple((key, int(layer.r[key])) for key in keys)
        down = torch.cat([layer.lora_A[key].weight for key in keys])
        up = torch.cat([layer.lora_B[key].weight.T * layer.scaling[key] for key in keys])
        self._down = torch.nn.Buffer(down.detach(), persistent=False)  # (all ranks, inputs)
        self._up = torch.nn.Buffer(up.detach().contiguous(), persistent=False)  # (all ranks, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, tokens, inputs) to (rows, tokens, outputs)."""
        result: torch.Tensor = self.base_layer(x)
        selection = self._rows.selection(self._layout)
        if selection is None:
            return result
        if x.dim() != 3 or len(x) != len(self._rows.keys):
            raise RuntimeError(f"{tuple(x.shape)} does not say which of {len(self._rows.keys)} rows is which")
        inner = torch.nn.functional.linear(x.to(self._down.dtype), self._down[selection.ranks])
        if selection.foreign is not None:
            # Not a product with zero: infinity times zero is not zero, and one row would spoil another.
            inner.masked_fill_(selection.foreign, 0.0)
        return result + (inner @ self._up[selection.ranks]).to(result.dtype)


def can_mix(layer: Any) -> bool:  # noqa: ANN401 - peft is untyped
    """Whether a layer is plain LoRA on a linear layer; others stay peft's."""
    return type(layer) is LoraLinear and not layer.lora_variant and not any(layer.lora_bias.values())


def mix(model: torch.nn.Module, rows: RowAdapters) -> None:
    """Replace every layer of a model that can be by its mixed form, which answers for `rows`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if can_mix(child):
                setattr(parent, name, MixedLinear(child, rows))
