"""Jobs that are run for one result: preparing a dataset, staging a model. Tried again only where that can help."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import ValidationError

from finetune_contract.base import Document
from finetune_contract.failure import Failure, FailureReason, policy_of, reason_of
from finetune_operator.api.base import JobFailure
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.admission import waits_for
from finetune_operator.reconcile.endings import (
    Ending,
    ending_of,
    finished_at,
    generation_of,
    is_outdated,
    last_word_at,
    name_of,
    numbered,
    trouble_of,
)
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.troubles import Trouble

LIMIT = 3
"""Tries of a Job whose failure may pass; as many again after an edit. Disruptions are met with patience."""

MESSAGE_LIMIT = 2048
"""Characters of a failure's message that status keeps."""

DELAYS = (timedelta(seconds=10), timedelta(seconds=60))
"""Waits before the second and third try."""

_PASSING = ("PodPending", "PodStarting", "Ending")
"""Troubles of every Job on its way."""

Result = TypeVar("Result", bound=Document)


@dataclass(frozen=True)
class Wanted:
    """Nothing runs: the Job with this number is to be created, at once or later."""

    number: int
    at: datetime | None = None
    failure: JobFailure | None = None
    """Why the one before failed."""


@dataclass(frozen=True)
class Working:
    """The Job is there and has not ended."""

    trouble: Trouble | None = None
    """What keeps it from running."""
    failure: JobFailure | None = None
    """Why the one before failed."""
    until: datetime | None = None
    """When a Job that has ended is judged even if nothing more is heard of its pod."""

    def condition(self, reason: str, message: str) -> tuple[str, str]:
        """Reason and message of a condition: the cause where it has a name, else what the Job is for."""
        if self.trouble is None:
            return reason, message
        if self.trouble.reason in _PASSING:
            return reason, f"{self.trouble.reason}: {self.trouble.message}"
        return self.trouble.reason, self.trouble.advice


@dataclass(frozen=True)
class Outdated:
    """The Job does not get to run, and the spec has been edited since it was built: it is to be replaced."""

    job: Manifest


@dataclass(frozen=True)
class Done(Generic[Result]):
    """The Job left a result."""

    result: Result


@dataclass(frozen=True)
class GivenUp:
    """The Job failed for good."""

    failure: JobFailure


State = Wanted | Working | Outdated | Done[Result] | GivenUp


def state_of(
    observed: Observed,
    role: str,
    key: str,
    *,
    parse: Callable[[str], Result],
    failure_in: Callable[[Result], Failure | None],
    latched: JobFailure | None,
    generation: int,
    now: datetime,
) -> State[Result]:
    """Where the Job of one role and key is.

    `latched` is the failure that the status already tells of. A Job that failed is tried again after an edit of the
    spec (another `generation`): what made it fail may be mended.
    """
    jobs = numbered(observed.of("Job"), role, key)
    if not jobs:
        return Wanted(1)
    number, newest = jobs[-1]
    known = latched if latched and latched.job == name_of(newest) else None
    ending = ending_of(newest, observed.of("Pod"), now)
    if ending is None and is_outdated(newest, observed.of("Pod"), generation):
        return Outdated(newest)
    if ending is None:
        held_back = waits_for(newest, observed.admissions.get(newest["metadata"]["uid"]), now)
        trouble = held_back or trouble_of(newest, observed.of("Pod"), observed.reports)
        return Working(trouble, failure=None if known else latched, until=last_word_at(newest))
    if known is None:
        outcome = _read(ending, parse, failure_in)
        if not isinstance(outcome, Failure):
            return Done(outcome)
        message = outcome.message[:MESSAGE_LIMIT]
        known = JobFailure(job=name_of(newest), reason=outcome.reason.value, message=message)
    edited = generation_of(newest, generation) != generation
    return _after_failure(known, number, finished_at(newest), edited=edited)


def _read(
    ending: Ending, parse: Callable[[str], Result], failure_in: Callable[[Result], Failure | None]
) -> Result | Failure:
    """The pod's own word where it left one, else Kubernetes'."""
    try:
        result = parse(ending.message)
    except ValidationError as error:
        message = f"the pod ended with exit code 0 but left no valid result: {error.errors()[0]['msg']}"
        return ending.failure or Failure(reason=FailureReason.CONTRACT_VIOLATION, message=message)
    return failure_in(result) or result


def _after_failure(failure: JobFailure, number: int, ended: datetime | None, *, edited: bool) -> Wanted | GivenUp:
    if edited:
        return Wanted(number + 1, failure=failure)
    policy = policy_of(reason_of(failure.reason))
    if not policy.retried or (policy.counts and number % LIMIT == 0):
        return GivenUp(failure)
    delay = DELAYS[min(number, len(DELAYS)) - 1]
    return Wanted(number + 1, at=ended + delay if ended else None, failure=failure)


def explain(failure: JobFailure) -> str:
    """What happened and what to do, for a condition."""
    return f"{failure.message.rstrip('.')}. {policy_of(reason_of(failure.reason)).remedy}"


def wait_for(wanted: Wanted, now: datetime) -> float | None:
    """Seconds until the Job is to be created; None if that is now."""
    return None if is_due(wanted, now) or wanted.at is None else (wanted.at - now).total_seconds()


def is_due(wanted: Wanted, now: datetime) -> bool:
    """Whether the Job is to be created now."""
    return wanted.at is None or wanted.at <= now
