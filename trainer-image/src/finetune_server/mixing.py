"""LoRA layers whose rows each have an adapter of their own: two batched products, however many adapters there are.

peft's own mixed batch takes each adapter's rows out, multiplies them twice and puts them back, for every layer and
token: with eight adapters that is eight times the calls, and on small models calls are what takes the time. Here the
adapters of a layer are stacked, rows are put into groups by adapter, and all groups are multiplied in one call.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear

Layout = tuple[str, ...]
"""Which adapters a layer has, in the order in which they are stacked."""


class Groups(NamedTuple):
    """Rows by adapter, for layers with one layout."""

    members: slice | torch.Tensor
    """Which of the stacked adapters are multiplied with."""
    gather: torch.Tensor | None
    """(members * places,): the row in each place of each member's group, any row where a place is free. None: there is
    one member, and all rows in their order are its."""
    places: torch.Tensor
    """(tuned rows,): where each row that has an adapter here finds its result."""
    tuned: torch.Tensor | None
    """(tuned rows,): the rows that have one; None: all."""


class RowAdapters:
    """Which adapter each row of the running batch has; one for all layers of a model."""

    def __init__(self, device: torch.device) -> None:
        self.keys: tuple[str, ...] = ()
        self._device = device
        self._groups: dict[Layout, Groups | None] = {}

    def assign(self, keys: Sequence[str]) -> None:
        """Say what the rows of the next forward pass have."""
        if self.keys != (keys := tuple(keys)):
            self.keys = keys
            self._groups = {}

    def groups(self, layout: Layout) -> Groups | None:
        """These rows for layers with this layout; None: no row has an adapter there."""
        if layout not in self._groups:
            self._groups[layout] = self._group(layout)
        return self._groups[layout]

    def _group(self, layout: Layout) -> Groups | None:
        rows_of = {at: [row for row, key in enumerate(self.keys) if key == name] for at, name in enumerate(layout)}
        wanted = [at for at, rows in rows_of.items() if rows]
        if not wanted:
            return None
        first, end = wanted[0], wanted[-1] + 1
        members = list(range(first, end))
        chosen: slice | torch.Tensor = slice(first, end)
        if len(members) > 2 * len(wanted):
            # Copied for every token, and still cheaper than multiplying with what nobody needs.
            members, chosen = wanted, self._tensor(wanted)
        size = max(len(rows) for rows in rows_of.values())
        gather = [row for at in members for row in (rows_of[at] + [0] * size)[:size]]
        places = {
            row: group * size + place for group, at in enumerate(members) for place, row in enumerate(rows_of[at])
        }
        tuned = sorted(places)
        return Groups(
            chosen,
            None if gather == list(range(len(self.keys))) and len(members) == 1 else self._tensor(gather),
            self._tensor([places[row] for row in tuned]),
            None if len(tuned) == len(self.keys) else self._tensor(tuned),
        )

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


class MixedLinear(torch.nn.Module):
    """A linear layer with all its LoRA adapters, padded to the highest rank among them."""

    def __init__(self, layer: LoraLinear, rows: RowAdapters) -> None:
        """Take over a peft layer's base and weights; the layer itself is not needed any more."""
        super().__init__()
        self.base_layer = layer.base_layer
        self._rows = rows
        self._layout: Layout = tuple(layer.lora_A)
        rank = max(layer.r[key] for key in self._layout)
        down = [_padded(layer.lora_A[key].weight, rank).T for key in self._layout]
        up = [_padded(layer.lora_B[key].weight.T * layer.scaling[key], rank) for key in self._layout]
        self._down = torch.nn.Buffer(torch.stack(down).detach(), persistent=False)  # (adapters, inputs, rank)
        self._up = torch.nn.Buffer(torch.stack(up).detach(), persistent=False)  # (adapters, rank, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, tokens, inputs) to (rows, tokens, outputs)."""
        result: torch.Tensor = self.base_layer(x)
        groups = self._rows.groups(self._layout)
        if groups is None:
            return result
        if x.dim() != 3 or len(x) != len(self._rows.keys):
            raise RuntimeError(f"{tuple(x.shape)} does not say which of {len(self._rows.keys)} rows is which")
        down, up = self._down[groups.members], self._up[groups.members]
        x = x.to(down.dtype)
        if groups.gather is None:
            return result + (x @ down[0] @ up[0]).to(result.dtype)
        grouped = x[groups.gather].view(len(down), -1, x.shape[-1])
        changes = torch.bmm(torch.bmm(grouped, down), up).view(-1, *result.shape[1:])[groups.places].to(result.dtype)
        return result + changes if groups.tuned is None else result.index_add(0, groups.tuned, changes)


def _padded(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """(own rank, features) with rows of zeros up to another rank."""
    return torch.nn.functional.pad(weight, (0, 0, 0, rank - len(weight)))


def can_mix(layer: Any) -> bool:  # noqa: ANN401 - peft is untyped
    """Whether a layer is plain LoRA on a linear layer; others stay peft's."""
    return type(layer) is LoraLinear and not layer.lora_variant and not any(layer.lora_bias.values())


def mix(model: torch.nn.Module, rows: RowAdapters) -> None:
    """Replace every layer of a model that can be by its mixed form, which answers for `rows`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if can_mix(child):
                setattr(parent, name, MixedLinear(child, rows))
