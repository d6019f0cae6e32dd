"""What can go wrong, as a user sees it: one line on stderr that names the next step.

CliError               the command failed: exit code 1
  UnreachableError     nobody answers at the cluster's address; `watch` asks again
  NotFoundError        there is no object of that name
  NotStartedError      there is no log yet; `logs --follow` asks again
  NotStoredError       the store has no such file
  GateFailedError      training succeeded, but what it made does not meet spec.gate: exit code 3

Wrong usage is typer's own: exit code 2. `cluster` turns the client's exceptions into these, `__main__` prints them.
"""

from typing import Any


class CliError(Exception):
    """The command failed; its text is the line on stderr."""

    exit_code = 1


class UnreachableError(CliError):
    """Nobody answers at the cluster's address."""


class NotFoundError(CliError):
    """There is no object of that name."""


class NotStartedError(CliError):
    """There is no pod, or its container has not started."""


class NotStoredError(CliError):
    """The store has no such file."""


class GateFailedError(CliError):
    """The job's artifact does not meet its gate."""

    exit_code = 3

    def __init__(self, message: str, job: dict[str, Any]) -> None:
        super().__init__(message)
        self.job = job
