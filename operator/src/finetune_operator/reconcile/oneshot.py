"""Jobs that are run for one result: preparing a dataset, staging a model. Tried again only where that can help."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import ValidationError

from finetune_contract.base import Document
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.api.base import JobFailure
from finetune_operator.reconcile.endings import Ending, ending_of, finished_at, name_of, numbered, trouble_of
from finetune_operator.reconcile.observed import Observed

LIMIT = 3
"""Tries of a Job whose failure may pass."""

DELAYS = (timedelta(seconds=10), timedelta(seconds=60))
"""Waits before the second and third try."""

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

    reason: str
    message: str


@dataclass(frozen=True)
class Done(Generic[Result]):
    """The Job left a result."""

    result: Result


@dataclass(frozen=True)
class GivenUp:
    """The Job failed for good."""

    failure: JobFailure


State = Wanted | Working | Done[Result] | GivenUp


def state_of(
    observed: Observed,
    role: str,
    key: str,
    *,
    parse: Callable[[str], Result],
    failure_in: Callable[[Result], Failure | None],
    latched: JobFailure | None,
) -> State[Result]:
    """Where the Job of one role and key is; `latched` is the failure that the status already tells of."""
    jobs = numbered(observed.of("Job"), role, key)
    if not jobs:
        return Wanted(1)
    number, newest = jobs[-1]
    ending = ending_of(newest, observed.of("Pod"))
    if ending is None:
        trouble = trouble_of(newest, observed.of("Pod"))
        return Working(trouble.reason, trouble.message) if trouble else Working("Running", "")
    if latched and latched.job == name_of(newest):
        return _after_failure(latched, number, finished_at(newest))
    outcome = _read(ending, parse, failure_in)
    if isinstance(outcome, Failure):
        failure = JobFailure(job=name_of(newest), reason=outcome.reason.value, message=outcome.message)
        return _after_failure(failure, number, finished_at(newest))
    return Done(outcome)


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


def _after_failure(failure: JobFailure, number: int, ended: datetime | None) -> Wanted | GivenUp:
    if not policy_of(FailureReason(failure.reason)).retried or number >= LIMIT:
        return GivenUp(failure)
    delay = DELAYS[min(number, len(DELAYS)) - 1]
    return Wanted(number + 1, at=ended + delay if ended else None, failure=failure)


def explain(failure: JobFailure) -> str:
    """What happened and what to do, for a condition."""
    return f"{failure.message.rstrip('.')}. {policy_of(FailureReason(failure.reason)).remedy}"


def is_due(wanted: Wanted, now: datetime) -> bool:
    """Whether the Job is to be created now."""
    return wanted.at is None or wanted.at <= now
