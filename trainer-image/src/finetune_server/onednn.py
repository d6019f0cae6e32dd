"""Linear layers through oneDNN, on CPUs where torch itself would use MKL for fp32.

For the few rows of a decoded token MKL rearranges the whole matrix on every call. oneDNN, which torch brings along and
which torch.compile calls by these same operators, multiplies with a matrix that was rearranged once: on an EPYC, 8 rows
by 1536 x 576 in 0.13 ms instead of 0.38.
"""

import torch
from peft.tuners.lora import LoraLayer

_SMALLEST = 100_000
"""Weights of a layer from which on it pays: a call costs some 5 us more than MKL's."""

_reorder = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - as torch's Inductor does; a test compares numbers
_linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001

_ROWS = 8
"""What matrices are rearranged for; others are multiplied with as well, only not at their best."""


class OneDnnLinear(torch.nn.Module):
    """A linear layer for inference; fp32 in, fp32 out, the same numbers up to rounding."""

    def __init__(self, layer: torch.nn.Linear, *, is_shared: bool) -> None:
        """Take over a layer; `is_shared` when its weights are also another module's, and stay as they are."""
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        self._weight = weight if is_shared else _reorder(weight, _ROWS)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        result: torch.Tensor = _linear(x, self._weight, self._bias, "none", [], "")
        return result


def use_onednn(model: torch.nn.Module) -> None:
    """Replace the large fp32 linear layers of a model on a CPU, where torch has both libraries."""
    # Where there is no MKL (ARM), torch multiplies with oneDNN by itself.
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):  # type: ignore[no-untyped-call]
        return
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for parent in list(model.modules()):
        if isinstance(parent, LoraLayer):
            continue  # peft looks at its base layer's weights
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear) and _pays(child):
                setattr(parent, name, OneDnnLinear(child, is_shared=owners[id(child.weight)] > 1))


def _pays(layer: torch.nn.Linear) -> bool:
    return (
        type(layer) is torch.nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and layer.weight.numel() >= _SMALLEST
    )
