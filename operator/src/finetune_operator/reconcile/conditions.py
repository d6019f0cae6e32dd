"""The mechanics of conditions: transition times, the summary, what kstatus wants."""

from collections.abc import Iterable
from datetime import datetime

from finetune_operator.api.base import Condition, ConditionStatus

MESSAGE_LIMIT = 2048
RECONCILING = "Reconciling"
STALLED = "Stalled"
READY = "Ready"


class ConditionSet:
    """The conditions of one resource while a pass decides about them.

    Starts with what the status has; a condition that the pass does not set stays as it was, unless removed.
    """

    def __init__(self, previous: Iterable[Condition], generation: int, now: datetime) -> None:
        """Take the status's conditions, the spec's generation and the time of the pass."""
        self._before = {condition.type: condition for condition in previous}
        self._conditions = dict(self._before)
        self._generation = generation
        self._now = now.replace(microsecond=0)

    def set(self, type_: str, holds: bool | None, reason: str, message: str = "") -> None:
        """Say whether a condition holds (None: unknown), and why.

        The transition time changes only if the status differs from that before the pass, whatever was said in between.
        """
        status = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[holds]
        before = self._before.get(type_)
        since = before.last_transition_time if before and before.status is status else self._now
        self._conditions[type_] = Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            observed_generation=self._generation,
            last_transition_time=since,
        )

    def remove(self, *types: str) -> None:
        """Forget conditions that say nothing now."""
        for type_ in types:
            self._conditions.pop(type_, None)

    def ready(self, reason: str, message: str = "") -> None:
        """The resource is what its spec asks for."""
        self.set(READY, True, reason, message)
        self.remove(RECONCILING, STALLED)

    def waiting(self, reason: str, message: str = "") -> None:
        """The resource is on its way."""
        self.set(READY, False, reason, message)
        self.set(RECONCILING, True, reason, message)
        self.remove(STALLED)

    def idle(self, reason: str, message: str = "") -> None:
        """Nothing is wanted at present: neither on its way nor stuck."""
        self.set(READY, False, reason, message)
        self.remove(RECONCILING, STALLED)

    def stalled(self, reason: str, message: str) -> None:
        """Nothing will change unless somebody does something; the message says what."""
        self.set(READY, False, reason, message)
        self.set(STALLED, True, reason, message)
        self.remove(RECONCILING)

    def since(self, type_: str) -> datetime:
        """Since when a condition that is there has had its status."""
        return self._conditions[type_].last_transition_time

    def said(self, type_: str) -> tuple[str, str]:
        """A condition's reason and message; empty where there is none."""
        condition = self._conditions.get(type_)
        return (condition.reason, condition.message) if condition else ("", "")

    def to_list(self) -> list[Condition]:
        """In the order of their types, so that equal sets are equal lists."""
        return [self._conditions[type_] for type_ in sorted(self._conditions)]

    def holds(self, type_: str) -> bool:
        """Whether a condition is True."""
        condition = self._conditions.get(type_)
        return condition is not None and condition.status is ConditionStatus.TRUE

    def denies(self, type_: str) -> bool:
        """Whether a condition is said to be False."""
        condition = self._conditions.get(type_)
        return condition is not None and condition.status is ConditionStatus.FALSE
