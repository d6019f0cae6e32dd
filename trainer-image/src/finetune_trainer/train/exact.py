"""Sums of gradients that do not depend on how a step's forward passes are dealt to ranks, for training in fp32 on CPU.

Additions in fp32 round, so (a + b) + (c + d) is not ((a + b) + c) + d, and a resume with another number of ranks would
drift. In float64 sums of fp32 numbers within 2^29 of each other's size are exact, whatever their order; of the few that
are not, one in 2^29 rounds to another fp32 number. GPUs are not asked for this: their kernels are not exact themselves.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist


class ExactSums:
    """The gradients of one optimiser step, summed in float64."""

    def __init__(self) -> None:
        """Nothing summed yet."""
        self._sums: dict[torch.nn.Parameter, torch.Tensor] = {}

    def set_aside(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Take the gradients of a pass that is not the step's last."""
        for parameter in parameters:
            if parameter.grad is not None:
                before = self._sums.get(parameter)
                found = parameter.grad.double()
                self._sums[parameter] = found if before is None else before.add_(found)
                parameter.grad = None

    def put_back(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make the last pass's gradients those of the step; for one rank."""
        for parameter in parameters:
            before = self._sums.pop(parameter, None)
            if before is not None and parameter.grad is not None:
                parameter.grad.copy_(before.add_(parameter.grad))


def sum_over_ranks(
    sums: ExactSums,
    bucket: dist.GradBucket,  # type: ignore[name-defined] # torch checks for it, and its stubs do not know it
) -> torch.futures.Future[torch.Tensor]:
    """DDP's communication hook: the mean over the ranks, of what was set aside and the last pass's gradients."""
    total = bucket.buffer().double()
    start = 0
    for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
        before = sums._sums.pop(parameter, None)  # noqa: SLF001 - one module
        if before is not None:
            total[start : start + gradient.numel()] += before.flatten()
        start += gradient.numel()
    work = dist.all_reduce(total, async_op=True)
    assert work is not None
    future: torch.futures.Future[list[torch.Tensor]] = work.get_future()
    return future.then(lambda done: (done.value()[0] / dist.get_world_size()).to(bucket.buffer().dtype))
