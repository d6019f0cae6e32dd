"""LoRA layers whose rows each have an adapter of their own: two batched products, however many adapters there are.

peft's own mixed batch takes each adapter's rows out, multiplies them twice and puts them back, for every layer and
token: with eight adapters that is eight times the calls, and on small models calls are what takes the time. Here the
adapters of a layer are stacked, rows are put into groups by adapter, and all groups are multiplied in one call.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear

_SMALL = 350_000
"""Bytes of the matrices of a layer's rows up to which each row gets copies of its adapter's when rows come or go: to
copy them takes as long as a few tokens, and to put rows into groups costs small layers more than to multiply them. With
rank 16, 8 rows by 160 x 512 are just below it and gain; 8 by 576 x 192 lost 3 % over answers of 24 tokens."""

Layout = tuple[str, ...]
"""Which adapters a layer has, in the order in which they are stacked."""


class Groups(NamedTuple):
    """Rows by adapter, for layers with one layout."""

    members: slice | torch.Tensor
    """Which of the stacked adapters are multiplied with."""
    gather: torch.Tensor | None
    """(members * places,): the row in each place of each member's group, any row where a place is free. None: the rows
    are in their places already, and no place is free."""
    places: torch.Tensor
    """(tuned rows,): where each row that has an adapter here finds its result."""
    tuned: torch.Tensor | None
    """(tuned rows,): the rows that have one; None: all."""
    each: torch.Tensor
    """(rows,): which of the stacked adapters each row has, any where it has none."""
    untuned: torch.Tensor
    """(other rows,): the rows that have none."""


class Matrices(NamedTuple):
    """What rows are multiplied with until rows come or go."""

    keys: tuple[str, ...]
    """The rows' adapters."""
    groups: Groups | None
    """None: no row has an adapter here, and there is nothing to multiply."""
    down: torch.Tensor
    """(members, inputs, rank), or as many as rows."""
    up: torch.Tensor
    """(members, rank, outputs), or as many as rows."""
    gather: torch.Tensor | None
    """As the groups', where rows have to be put into groups first and taken out of them."""


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
            # Copied when rows come or go, which is cheaper than multiplying with what nobody needs.
            members, chosen = wanted, self._tensor(wanted)
        size = max(len(rows) for rows in rows_of.values())
        gather = [row for at in members for row in (rows_of[at] + [0] * size)[:size]]
        places = {
            row: group * size + place for group, at in enumerate(members) for place, row in enumerate(rows_of[at])
        }
        tuned = sorted(places)
        return Groups(
            chosen,
            None if gather == list(range(len(self.keys))) and len(tuned) == len(self.keys) else self._tensor(gather),
            self._tensor([places[row] for row in tuned]),
            None if len(tuned) == len(self.keys) else self._tensor(tuned),
            self._tensor([layout.index(key) if key in layout else 0 for key in self.keys]),
            self._tensor([row for row in range(len(self.keys)) if row not in places]),
        )

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


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
        self._wanted = Matrices((), None, self._down, self._up, None)
        """What the last forward pass multiplied with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, tokens, inputs) to (rows, tokens, outputs)."""
        result: torch.Tensor = self.base_layer(x)
        # The same tuple until rows come or go.
        if self._wanted.keys is not self._rows.keys:
            self._wanted = self._choose(self._rows.keys)
        keys, groups, down, up, gather = self._wanted
        if groups is None:
            return result
        if x.dim() != 3 or x.shape[0] != len(keys):
            raise RuntimeError(f"{tuple(x.shape)} does not say which of {len(keys)} rows is which")
        inputs = x if x.dtype == down.dtype else x.to(down.dtype)
        if gather is not None:
            inputs = inputs.index_select(0, gather)
        hidden = torch.bmm(inputs.reshape(down.shape[0], -1, x.shape[-1]), down)
        if gather is None and result.dtype == up.dtype:
            added = torch.baddbmm(result.view(up.shape[0], -1, result.shape[-1]), hidden, up)
            return added.view(result.shape)
        changes = torch.bmm(hidden, up).view(-1, *result.shape[1:]).to(result.dtype)
        if gather is None:
            return result + changes
        changes = changes.index_select(0, groups.places)
        return result + changes if groups.tuned is None else result.index_add(0, groups.tuned, changes)

    def _choose(self, keys: tuple[str, ...]) -> Matrices:
        groups = self._rows.groups(self._layout)
        if groups is None:
            return Matrices(keys, None, self._down, self._up, None)
        size = (self._down[0].nbytes + self._up[0].nbytes) * len(keys)
        if groups.gather is None or size > _SMALL:
            return Matrices(keys, groups, self._down[groups.members], self._up[groups.members], groups.gather)
        down, up = (every[groups.each].index_fill_(0, groups.untuned, 0.0) for every in (self._down, self._up))
        return Matrices(keys, groups, down, up, None)


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
