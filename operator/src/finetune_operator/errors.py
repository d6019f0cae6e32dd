"""What can go wrong with the API server, in the few classes that callers tell apart.

    ClusterError
    ├── NotFound        there is no such object (or no such kind)
    ├── Conflict        somebody else was faster, or holds the name: read again and decide again
    │   └── AlreadyExists
    ├── Expired         a list's continuation or version is too old: start it again
    ├── Denied          refused by admission, quota, RBAC or schema; the message is the server's and meant for people
    └── Unavailable     no usable answer: connection, time-out, overload, 5xx, a refused login

Responses are converted once, in `cluster`. The message is always the API server's own where it gave one.
"""


class ClusterError(Exception):
    """A request to the API server that did not succeed."""


class NotFound(ClusterError):  # noqa: N818 - named as the API's reason
    """HTTP 404."""


class Conflict(ClusterError):  # noqa: N818 - named as the API's reason
    """HTTP 409, or an object of that name that belongs to somebody else."""


class AlreadyExists(Conflict):
    """HTTP 409 on a create: the name is taken."""


class Expired(ClusterError):  # noqa: N818 - named as the API's reason
    """HTTP 410."""


class Denied(ClusterError):  # noqa: N818 - named after what happened
    """HTTP 400, 403, 413, 422 and other refusals of the request itself; asking again unchanged seldom helps."""


class Unavailable(ClusterError):  # noqa: N818 - named after what happened
    """The API server could not be asked; nothing is known about whether a write happened."""
