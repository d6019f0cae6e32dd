"""How one row's next token is chosen."""

from dataclasses import dataclass

import torch

GREEDY_BELOW = 1e-5
"""Temperatures under this divide logits into infinities; the limit of sampling there is the best token."""


@dataclass(frozen=True)
class Sampling:
    """One request's sampling settings; the default is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    """Only the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability."""
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW


def generator_for(sampling: Sampling) -> torch.Generator:
    """A row's own random numbers: the same seed gives the same answer in any batch.

    On the CPU on purpose: CUDA's generators give other numbers, and one row's probabilities are quickly copied.
    """
    return torch.Generator(device="cpu").manual_seed(sampling.seed)


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token of one row.

    Args:
        logits: (vocabulary,) in fp32.
        sampling: The row's settings.
        generator: The row's random numbers, advanced by one draw unless greedy.
    """
    if sampling.is_greedy:
        return int(logits.argmax())
    scaled = logits.cpu() / sampling.temperature
    if 0 < sampling.top_k < scaled.numel():
        scaled = scaled.masked_fill(scaled < scaled.topk(sampling.top_k).values[-1], -torch.inf)
    probabilities = scaled.softmax(-1)
    if sampling.top_p < 1.0:
        probabilities = _nucleus(probabilities, sampling.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of likely tokens that reaches top_p (Holtzman et al., arXiv 1904.09751)."""
    ordered, indices = probabilities.sort(descending=True)
    # A token stays while the tokens before it have not reached top_p: the first one always does.
    beyond = ordered.cumsum(-1) - ordered >= top_p
    beyond[0] = False
    return probabilities.scatter(-1, indices, ordered.masked_fill(beyond, 0.0))
