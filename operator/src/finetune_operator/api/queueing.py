"""A place in a Kueue queue: what a spec says about it, and what a status tells."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from finetune_operator.api.base import ApiModel, Name, Scheduling, Word


class JobScheduling(Scheduling):
    """Where the training pod may run, and the Kueue queue that it waits in."""

    queue_name: Name | None = None
    """The Kueue LocalQueue of this namespace that admits the training Job; an edit moves a job that still waits."""
    queue_priority: Name | None = None
    """The Kueue WorkloadPriorityClass: who comes first in the queue and who may preempt whom."""


class QueueStatus(ApiModel):
    """The present attempt's place in its Kueue queue, and how often it lost its quota to others."""

    name: Word
    """The LocalQueue."""
    attempt: Annotated[int, Field(ge=1)]
    """The attempt this is about."""
    position: Annotated[int, Field(ge=1)] | None = None
    """Place among those that wait in the queue, 1 is next; from 20 on in steps of ten. Unset: admitted, or unknown."""
    waiting: Annotated[int, Field(ge=1)] | None = None
    """How many wait in the queue; from 20 on in steps of ten."""
    preemptions: Annotated[int, Field(ge=0)] = 0
    """How often the attempt's pods were stopped and the attempt was queued again; it resumes from its checkpoint."""
    preempted_at: datetime | None = None
    """When the last of them had stopped."""
    seconds: Annotated[int, Field(ge=0)] = 0
    """How long the pods ran that were stopped."""
    checkpoint_step: Annotated[int, Field(ge=0)] | None = None
    """Step of the newest checkpoint that they left."""
