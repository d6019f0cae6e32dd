"""What a run costs: memory at its peak, tokens per second, and the share of the device's arithmetic that is used."""

import resource
import time
from typing import Any

import torch

_PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
}
"""Dense bf16 FLOP/s by a part of the device's name, special names first; from NVIDIA's data sheets."""

_FLOPS_PER_WEIGHT_FORWARD = 2
_FLOPS_PER_WEIGHT_BACKWARD = 2
"""Per token and weight: a multiply and an add, for the forward pass, for the gradient of the input, and for that of the
weight itself where it is trained (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1)."""


class Meter:
    """Counts tokens and seconds of one attempt's loop; the first step, which compiles and allocates, is left out."""

    def __init__(self, flops_per_token: float = 0.0, peak_flops: float | None = None) -> None:
        """Take what a token costs and what the device can do; without them there is no utilisation."""
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._tokens = 0
        self._began: float | None = None
        self._seconds = 0.0

    @classmethod
    def of(cls, model: Any) -> "Meter":  # noqa: ANN401 - transformers has no types
        """The meter for a model on the device that it is on."""
        return cls(flops_per_token(model), peak_flops(model.device))

    def step(self, tokens: int) -> None:
        """Count a finished step."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            return
        self._tokens += tokens
        self._seconds = now - self._began

    def leave_out(self, seconds: float) -> None:
        """Time that was spent on something else than training."""
        if self._began is not None:
            self._began += seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Mean over all steps but the first; None until there are two."""
        return round(self._tokens / self._seconds, 1) if self._seconds > 0 else None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation (Chowdhery et al. 2022, "PaLM", appendix B), attention and recomputation left out."""
        speed = self.tokens_per_second
        if speed is None or not self._peak_flops:
            return None
        return round(speed * self._flops_per_token / self._peak_flops, 4)


def flops_per_token(model: Any) -> float:  # noqa: ANN401
    """FLOPs that one token of training takes in the model's matrices; embeddings are looked up, not multiplied."""
    embeddings = model.get_input_embeddings().weight
    tied = model.get_output_embeddings() is not None and model.get_output_embeddings().weight is embeddings
    weights = {id(each): each for each in model.parameters() if each is not embeddings or tied}.values()
    every = sum(_size(weight) for weight in weights)
    trained = sum(_size(weight) for weight in weights if weight.requires_grad)
    return _FLOPS_PER_WEIGHT_FORWARD * every + _FLOPS_PER_WEIGHT_BACKWARD * (every + trained)


def _size(weight: torch.nn.Parameter) -> int:
    # bitsandbytes packs two 4-bit weights into one element.
    return weight.numel() * (2 if type(weight).__name__ == "Params4bit" else 1)


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a GPU; None for one that is not in the table, and for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_FLOPS.items() if part in name), None)


def peak_memory() -> int:
    """The most bytes this process has held so far: of GPU memory where it uses some, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def free_memory() -> int | None:
    """Bytes of GPU memory that nobody holds; None without a GPU."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
