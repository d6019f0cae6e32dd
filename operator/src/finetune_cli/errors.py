"""What can go wrong, as a user sees it: one line on stderr that names the next step.

CliError               the command failed: exit code 1
  UnreachableError     nobody answers at the cluster's address; `watch` asks again
  NotStartedError      there is no log yet; `logs --follow` asks again

Wrong usage is typer's own: exit code 2. `cluster` turns the client's exceptions into these, `__main__` prints them.
"""


class CliError(Exception):
    """The command failed; its text is the line on stderr."""


class UnreachableError(CliError):
    """Nobody answers at the cluster's address."""


class NotStartedError(CliError):
    """There is no pod, or its container has not started."""
