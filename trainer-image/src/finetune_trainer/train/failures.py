"""Errors of torch and the libraries, given the names of `finetune_contract.failure`."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.stop import Stop
from finetune_trainer.train.memory import evidence, out_of_memory

log = logging.getLogger(__name__)

_TRACEBACK_LINES = 8
"""Enough to see where it happened; the whole of it is in the log."""

_MESSAGE_LIMIT = 1024
"""Characters of a failure's message."""


@contextmanager
def named(stop: Stop) -> Iterator[None]:
    """Turn whatever a library raises into a failure with a name; OSErrors are the volume's and pass through.

    Args:
        stop: Once the pod was told to stop, whatever goes wrong is a consequence of that.

    Raises:
        FineTuneError: Preempted, GpuOutOfMemory, HostOutOfMemory, StorageFull, or TrainerCrashed with the end of the
            traceback.
    """
    try:
        yield
    except Exception as error:
        stop.check()
        memory = out_of_memory(error)
        if isinstance(error, FineTuneError) or (isinstance(error, OSError) and memory is None):
            raise
        log.exception("training failed")
        if memory is not None:
            raise FineTuneError(memory, f"{evidence()}\n{_message_of(error)}"[:_MESSAGE_LIMIT]) from error
        raise FineTuneError(_reason_of(error), _message_of(error)) from error


def _reason_of(error: Exception) -> FailureReason:
    text = str(error)
    if "No space left on device" in text or "file write failed" in text:  # safetensors; torch.save
        return FailureReason.STORAGE_FULL
    return FailureReason.TRAINER_CRASHED


def _message_of(error: Exception) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:])[-_MESSAGE_LIMIT:]
