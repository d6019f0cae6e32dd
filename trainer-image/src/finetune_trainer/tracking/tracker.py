"""What every tracker can do."""

from collections.abc import Sequence
from typing import Protocol

from finetune_contract.tracking import TrackedRun
from finetune_contract.tracking import Tracker as Kind
from finetune_trainer.tracking.words import Outcome, Point


class Refused(Exception):  # noqa: N818 - says what happened
    """The tracker has understood and said no: asking again would change nothing."""


class Tracker(Protocol):
    """One run at one tracker. Whatever but `Refused` is raised may pass, and is tried again."""

    kind: Kind

    def open(self) -> TrackedRun:
        """Begin the run, or go on with the one of an earlier attempt."""

    def log(self, points: Sequence[Point]) -> None:
        """Send some points; those of a step may come again, with the same values."""

    def finish(self, outcome: Outcome) -> None:
        """Say how the attempt has ended."""
