"""What can go wrong, as a user sees it: one line, with the next step.

CliError                 exit code 1
  ClusterError           the cluster cannot be asked
    NoCluster            no kubeconfig, unknown context, nobody answers
    NotInstalled         the cluster has no finetune.dev CRDs
    NotAllowed           it knows us, and refuses; or does not know us
  NotFound               no such object
  JobFailed              `watch`: the job failed or is stalled
  TimedOut               `watch`: neither done nor failed in time
UsageError               click's own, exit code 2

`cluster` turns the client's exceptions into these, `__main__` prints them; nobody else catches them.
"""


class CliError(Exception):
    """The command failed; its text is the line on stderr."""

    exit_code = 1


class ClusterError(CliError):
    """The cluster cannot be asked."""


class NoCluster(ClusterError):
    """There is no kubeconfig, no such context, or nobody answers."""


class NotInstalled(ClusterError):
    """The cluster does not know the kinds of finetune.dev."""


class NotAllowed(ClusterError):
    """The cluster refuses, or does not know who asks."""


class NotFound(CliError):
    """There is no such object."""


class JobFailed(CliError):
    """The job that was watched failed or is stalled."""


class TimedOut(CliError):
    """The job that was watched took too long."""
