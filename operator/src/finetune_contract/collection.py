"""What a collecting pod is asked to do, and what it says it has done.

The pod knows the store but not the cluster, so its plan carries what is in use: the first characters of every digest
and run key that occurs in a status, a spec, a plan or a pod's result of the namespace.
"""

import re
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from finetune_contract.base import Count, Document
from finetune_contract.failure import Failure
from finetune_contract.storage import StorePlan

PREFIX_LENGTH = 12
"""Characters of a digest or run key that a plan carries: two that agree in 48 bits keep each other, never more."""

MOST_PREFIXES = 60_000
"""References that fit a ConfigMap of 1 MiB."""

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def prefixes_in(text: str) -> set[str]:
    """The prefix of everything in a text that looks like a digest or a run key, wherever it stands."""
    return {found[:PREFIX_LENGTH] for found in _DIGEST.findall(text)}


class CollectionPlan(StorePlan):
    """Delete what nothing has referred to for some time."""

    version: Literal[1] = 1
    namespace: str

    as_of: AwareDatetime
    """When the operator began to look for what is in use."""
    minimum_age_seconds: Annotated[float, Field(gt=0)]
    """What was in use or referred to within this time stays."""
    live: tuple[Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{PREFIX_LENGTH}}}$")], ...] = ()
    """What is in use, by prefix."""


class CollectionResult(Document):
    """What a collecting pod leaves."""

    in_use: Count = 0
    """Entries of the store that something refers to."""
    waiting: Count = 0
    """Entries that nothing refers to, not yet for long enough."""
    removed: Count = 0
    """Entries that were deleted: datasets, models, artifacts and runs."""
    checkpoints_removed: Count = 0
    """Succeeded runs whose checkpoints were deleted."""
    bytes: Count = 0
    """Size of what was deleted."""
    failure: Failure | None = None
