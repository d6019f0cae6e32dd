"""Errors of torch and the libraries, given the names of `finetune_contract.failure`."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_store.disks import reason_when_full
from finetune_trainer.stop import Stop

log = logging.getLogger(__name__)

_TRACEBACK_LINES = 8
"""Enough to see where it happened; the whole of it is in the log."""

_MESSAGE_LIMIT = 1024
"""Characters of a failure's message."""

_PEER_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "Timed out waiting",
    "gloo/transport",
    "NCCL",
)
"""What gloo and NCCL say when another rank is gone or silent; gloo raises a bare RuntimeError."""


@contextmanager
def named(stop: Stop) -> Iterator[None]:
    """Turn whatever a library raises into a failure with a name; OSErrors are the volume's and pass through.

    Args:
        stop: Once the pod was told to stop, whatever goes wrong is a consequence of that.

    Raises:
        FineTuneError: Preempted, GpuOutOfMemory, NcclTimeout, HostOutOfMemory, StorageFull, EphemeralStorageFull, or
            TrainerCrashed with the end of the traceback.
    """
    try:
        yield
    except Exception as error:
        stop.check()
        if isinstance(error, (FineTuneError, OSError, MemoryError)):
            raise
        log.exception("training failed")
        raise FineTuneError(_reason_of(error), _message_of(error)) from error


def _reason_of(error: Exception) -> FailureReason:
    text = str(error)
    if "CUDA out of memory" in text or type(error).__name__ == "OutOfMemoryError":
        return FailureReason.GPU_OUT_OF_MEMORY
    if _is_lost_peer(error):
        return FailureReason.NCCL_TIMEOUT
    if "can't allocate memory" in text or "DefaultCPUAllocator" in text:
        return FailureReason.HOST_OUT_OF_MEMORY
    if "No space left on device" in text or "file write failed" in text:  # safetensors; torch.save
        return reason_when_full(None)
    return FailureReason.TRAINER_CRASHED


def _is_lost_peer(error: Exception) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}  # by name: torch may not be loaded yet
    return "DistError" in kinds or ("RuntimeError" in kinds and any(sign in str(error) for sign in _PEER_SIGNS))


def _message_of(error: Exception) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:])[-_MESSAGE_LIMIT:]
