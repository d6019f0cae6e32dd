"""The edge of every command: a failure becomes a result document and an exit code, here and nowhere else."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from finetune_contract.base import Document
from finetune_contract.failure import Failure, FailureReason, FineTuneError, policy_of
from finetune_contract.paths import TERMINATION_LIMIT
from finetune_store.disks import FULL, reason_when_full

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 2048
"""Bytes of a termination message that a failure may take."""

PlanT = TypeVar("PlanT", bound=Document)


def failure_of(error: BaseException) -> Failure:
    """Any error as a named failure.

    An OSError is a volume's: sources (network, a user's files) convert theirs where they know the address.
    """
    return _cut(_named(error).to_failure())


def _named(error: BaseException) -> FineTuneError:
    if isinstance(error, FineTuneError):
        return error
    if isinstance(error, _StoppedError):
        return FineTuneError(FailureReason.PREEMPTED, str(error))
    if isinstance(error, OSError):
        is_full = error.errno in FULL
        reason = reason_when_full(error.filename) if is_full else FailureReason.STORAGE_UNAVAILABLE
        unnamed = "the pod's own disk" if reason is FailureReason.EPHEMERAL_STORAGE_FULL else "the volume"
        return FineTuneError(reason, f"{error.filename or unnamed}: {error.strerror or error}")
    if isinstance(error, MemoryError):
        return FineTuneError(FailureReason.HOST_OUT_OF_MEMORY, "the pod ran out of memory")
    return FineTuneError(FailureReason.TRAINER_CRASHED, f"{type(error).__name__}: {error}")


def read_plan(path: Path, kind: type[PlanT]) -> PlanT:
    """The plan of a pod.

    Raises:
        FineTuneError: ContractViolation when it is missing or of another release.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{path}: {where}: {first['msg']}") from error
    except OSError as error:
        raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{path}: {error.strerror}") from error


def run_command(
    work: Callable[[], Document | None], failed: Callable[[Failure], Document], termination_log: Path
) -> int:
    """Run a command to its end, leave its result in the termination log, and answer its exit code.

    Args:
        work: Does everything and returns the result, if the command has one.
        failed: The result that says why there is none.
        termination_log: Where the result goes.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    # Pods share the claim by their fsGroup, so what one makes the others may change.
    os.umask(0o002)
    code = 0
    with _stopped_by_sigterm():
        try:
            result = work()
            document = fitting(result) if result is not None else b""
        except (Exception, _StoppedError) as error:
            failure = failure_of(error)
            log.info("%s: %s", failure.reason, failure.message, exc_info=_unexpected(error))
            document = fitting(failed(failure))
            code = policy_of(failure.reason).exit_code or 1
    termination_log.write_bytes(document)
    return code


def fitting(result: Document) -> bytes:
    """A result as JSON that the kubelet keeps whole.

    Raises:
        ValueError: When it is too long: the kubelet would cut it into something that is not JSON.
    """
    text = result.to_json().encode()
    if len(text) > TERMINATION_LIMIT:
        raise ValueError(f"a result of {len(text)} bytes does not fit the {TERMINATION_LIMIT} of a termination message")
    return text


class _StoppedError(BaseException):
    """SIGTERM: not an Exception, so that no library's retry loop swallows it."""


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind, which removes workspaces; without a handler, a container's first process ignores it."""

    def stop(_signal: int, _frame: object) -> None:
        raise _StoppedError("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _unexpected(error: BaseException) -> BaseException | None:
    """Show where a bug was; a named failure says all there is to know."""
    return None if isinstance(error, FineTuneError | _StoppedError) else error


def _cut(failure: Failure) -> Failure:
    """A message whose JSON, with its escapes, leaves room for the rest of a result."""
    message = failure.message
    while len(json.dumps(message)) > _MESSAGE_BYTES:
        message = message[: len(message) * 3 // 4]
    return failure.model_copy(update={"message": message})
