"""The API server, as the rest of the operator sees it: the only package that talks to it, but for Kopf's watches.

`resources` is the table of what may be asked for, `interface` what the rest of the operator asks, `apiserver` asks it
over HTTP, `answers` reads what comes back. A request outside of the table is a bug that fails here, before RBAC would
fail it on a user's cluster.
"""

from finetune_operator.cluster.apiserver import METHODS, PAGE_SIZE, ApiServer
from finetune_operator.cluster.interface import Cluster, Connection, Head, Heads, Page
from finetune_operator.cluster.resources import (
    CHILD_KINDS,
    JOB_UID,
    MANAGED,
    OWN_KINDS,
    RESOURCES,
    Resource,
    controller_uid,
)

__all__ = [
    "CHILD_KINDS", "JOB_UID", "MANAGED", "METHODS", "OWN_KINDS", "PAGE_SIZE", "RESOURCES", "ApiServer", "Cluster",
    "Connection", "Head", "Heads", "Page", "Resource", "controller_uid",
]  # fmt: skip
