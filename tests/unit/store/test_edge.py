"""What becomes of errors at the edge of a command."""

import errno
import os
import signal
from pathlib import Path

import pytest

from finetune_contract.failure import Failure, FailureReason, FineTuneError
from finetune_store.disks import reason_when_full
from finetune_store.edge import failure_of, run_command


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (FineTuneError(FailureReason.BAD_ROW, "line 7"), FailureReason.BAD_ROW, "line 7"),
        (OSError(errno.ENOSPC, "No space left"), FailureReason.STORAGE_FULL, "the volume: No space left"),
        (OSError(errno.EDQUOT, "Quota", "/store/x"), FailureReason.STORAGE_FULL, "/store/x: Quota"),
        (OSError(errno.ENOSPC, "Full", "/scratch/x"), FailureReason.EPHEMERAL_STORAGE_FULL, "/scratch/x: Full"),
        (OSError(errno.EIO, "I/O error", "/store/x"), FailureReason.STORAGE_UNAVAILABLE, "/store/x: I/O error"),
        (PermissionError(13, "Denied", "/store"), FailureReason.STORAGE_UNAVAILABLE, "/store: Denied"),
        (MemoryError(), FailureReason.HOST_OUT_OF_MEMORY, "the pod ran out of memory"),
        (KeyError("x"), FailureReason.TRAINER_CRASHED, "KeyError: 'x'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_has_a_name(error: Exception, reason: FailureReason, said: str) -> None:
    assert failure_of(error) == Failure(reason=reason, message=said)


def test_a_full_disk_that_the_error_does_not_name_is_the_fuller_one(tmp_path: Path, small_volume: Path) -> None:
    (small_volume / "filler").write_bytes(b"x" * 40_000)
    assert reason_when_full(None, store=tmp_path, scratch=small_volume) is FailureReason.EPHEMERAL_STORAGE_FULL
    assert reason_when_full(None, store=small_volume, scratch=tmp_path) is FailureReason.STORAGE_FULL
    assert reason_when_full(None, store=tmp_path, scratch=tmp_path / "none") is FailureReason.STORAGE_FULL


@pytest.mark.parametrize("message", ["x" * 9000, "\N{GRINNING FACE}" * 9000, "\0" * 9000], ids=["ascii", "wide", "nul"])
def test_a_long_message_still_fits(tmp_path: Path, message: str) -> None:
    def work() -> None:
        raise FineTuneError(FailureReason.BAD_ROW, message)

    assert run_command(work, lambda failure: failure, tmp_path / "log") == 67
    text = (tmp_path / "log").read_bytes()
    assert len(text) <= 4096
    assert Failure.model_validate_json(text).reason is FailureReason.BAD_ROW


def test_sigterm_unwinds_and_is_named(tmp_path: Path) -> None:
    unwound = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            unwound.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(work, lambda failure: failure, tmp_path / "log") == 78
    assert Failure.model_validate_json((tmp_path / "log").read_bytes()).reason is FailureReason.PREEMPTED
    assert unwound
    assert signal.getsignal(signal.SIGTERM) is before
