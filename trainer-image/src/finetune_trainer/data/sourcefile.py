"""One file of a source, and how trouble in reading it is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.failure import FailureReason, FineTuneError


@dataclass(frozen=True)
class SourceFile:
    """A file in this pod, under the name that its author knows."""

    name: str
    path: Path


@contextmanager
def named_read_errors(name: str) -> Iterator[None]:
    """Make an OSError of the source's volume a SourceUnavailable: the store's own volume is another one."""
    try:
        yield
    except OSError as error:
        raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{name}: {error.strerror or error}") from error
