"""The process group: how the ranks of one attempt meet, agree, and notice that one of them is gone.

NCCL carries tensors between GPUs; gloo carries everything between CPUs, also the few numbers that ranks agree on at the
end of each step, so that agreeing never waits for a GPU.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.stop import Stop
from finetune_trainer.train.ranks import Ranks

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
"""Between two tries to reach rank 0: its pod may not have a name yet."""

T = TypeVar("T")


@contextmanager
def joined(ranks: Ranks, timeout_seconds: float, stop: Stop) -> Iterator[None]:
    """Within, all ranks are connected; they leave together, unless one fails.

    Raises:
        FineTuneError: NcclTimeout when the others do not come, Preempted when told to stop while waiting.
    """
    if not ranks.are_several:
        yield
        return
    if ranks.local < torch.cuda.device_count():  # else `find_device` says so in words
        torch.cuda.set_device(ranks.local)
    if not ranks.is_first:
        _wait_for_first(timeout_seconds, stop)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(
            backend, timeout=timedelta(seconds=timeout_seconds), rank=ranks.rank, world_size=ranks.count
        )
    except dist.DistError as error:
        stop.check()
        raise FineTuneError(
            FailureReason.NCCL_TIMEOUT,
            f"not all of {ranks.count} ranks were there within {timeout_seconds:.0f} s "
            f"(spec.parallelism.timeoutSeconds): {error}"[:500],
        ) from error
    log.info("rank %d of %d: connected", ranks.rank, ranks.count)
    yield
    # Not after a failure: there, the others are gone, and the end of this process tells the rest.
    together(ranks)
    dist.destroy_process_group()


def _wait_for_first(timeout_seconds: float, stop: Stop) -> None:
    """Wait here, where SIGTERM is heard, rather than in torch, where it is not."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    end = time.monotonic() + timeout_seconds
    while True:
        stop.check()
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() > end:
                raise FineTuneError(
                    FailureReason.NCCL_TIMEOUT,
                    f"rank 0 at {address}:{port} was not there within {timeout_seconds:.0f} s "
                    f"(spec.parallelism.timeoutSeconds): {error.strerror or error}",
                ) from error
            time.sleep(_RETRY_SECONDS)
        else:
            return


def from_first(ranks: Ranks, value: T) -> T:
    """Rank 0's value, on every rank."""
    if not ranks.are_several:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def sums(ranks: Ranks, values: Sequence[float]) -> list[float]:
    """Each value summed over the ranks: the same numbers on every rank, so decisions made from them agree."""
    if not ranks.are_several:
        return list(values)
    found = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(found)
    return list(found.tolist())


def gathered(ranks: Ranks, value: bytes) -> list[bytes]:
    """Every rank's value, in their order, on rank 0; nothing elsewhere."""
    found: list[bytes] | None = [b""] * ranks.count if ranks.is_first else None
    dist.gather_object(value, found)
    return found or []


def gathered_by_all(value: T) -> list[T]:
    """Every rank's value, in their order, on every rank; for several ranks."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def together(ranks: Ranks) -> None:
    """Wait until every rank is here."""
    sums(ranks, [0.0])
