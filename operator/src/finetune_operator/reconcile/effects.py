"""What a pass over a resource with attempts will do, as far as it is decided; drafts add what they decide about."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from finetune_operator.api.base import Duration, Metadata, seconds_of
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.endings import finished_at, name_of
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import ChildName, Event
from finetune_operator.reconcile.resources import missing_claim, seconds_until, to_create, with_plan


@dataclass(kw_only=True)
class Effects:
    """Objects to create and delete, events to tell, and when to look again."""

    metadata: Metadata
    """The resource's."""
    observed: Observed
    conditions: ConditionSet
    create: tuple[Manifest, ...] = ()
    delete: tuple[ChildName, ...] = ()
    events: list[Event] = field(default_factory=list)
    wake_after: float | None = None

    def wake(self, seconds: float | None) -> None:
        """Ask for another pass after some seconds; the earliest wish wins."""
        wishes = [wish for wish in (self.wake_after, seconds) if wish is not None]
        self.wake_after = min(wishes, default=None)

    def make(self, wanted: tuple[Manifest, ...]) -> bool:
        """Create a Job and what it needs, once nothing from before an edit is in the way; answers whether it is made.

        What the API server has refused is asked for again, but not taken for made.
        """
        wishes = missing_claim(self.observed, self.metadata.namespace) + wanted
        self.create, delete = to_create(self.observed, wishes, self.metadata.generation)
        self.delete += delete
        return bool(self.create) and not any(name_of(manifest) in self.observed.denials for manifest in wishes)

    def start_attempt(self, number: int, wanted: tuple[Manifest, ...]) -> bool:
        """The same for an attempt, with the conditions saying so."""
        self.conditions.waiting("Starting", f"starting attempt {number}")
        is_made = self.make(wanted)
        if not is_made and not self.create:
            message = f"starting attempt {number} when what was there before the edit is gone"
            self.conditions.waiting("Stopping", message)
        return is_made

    def end(self, job: Manifest) -> None:
        """Stop a Job whose outcome stands: the operator may have died between writing it and stopping it."""
        if finished_at(job) is None:
            self.delete += with_plan(self.observed, job)

    def let_go(self, jobs: Iterable[Manifest], ttl: Duration | None, now: datetime) -> None:
        """Delete Jobs that have ended, with their pods and logs, once kept for `ttl`; None keeps them."""
        if ttl is None:
            return
        keep = timedelta(seconds=seconds_of(ttl))
        for job in jobs:
            finished = finished_at(job)
            if finished is None:
                continue
            if finished + keep <= now:
                self.delete += with_plan(self.observed, job)
            else:
                self.wake(seconds_until([finished + keep], now))
