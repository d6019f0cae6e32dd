"""An attempt whose end nobody saw, as its Job or its pod is gone: the store knows what became of it.

Somebody deleted it, perhaps after it had ended while no operator watched. Training again would be the expensive
answer, so a small CPU Job looks the run up first; until it has, the outcome is unknown.
"""

import hashlib
from datetime import datetime, timedelta

from finetune_contract.failure import Failure, FailureReason
from finetune_contract.results import ResolveResult
from finetune_operator.api.finetunejobstatus import Attempt
from finetune_operator.manifests import resolving
from finetune_operator.reconcile import limits, oneshot, queueing
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.endings import Ending, Numbered, finished_at
from finetune_operator.reconcile.resources import seconds_until, with_plan

PATIENCE = timedelta(seconds=3)
"""How long a Job that the status tells of may be missing: watches of two kinds do not arrive together."""


def is_lost(draft: Draft, latched: int) -> bool:
    """Whether an attempt was started whose end nobody has written down (and whose Job the caller does not see)."""
    return draft.run is not None and draft.run.attempt > latched


def is_unseen(ending: Ending) -> bool:
    """Whether a Job has ended and its pod, which would tell how, is gone."""
    return ending.failure is not None and ending.failure.reason is FailureReason.UNKNOWN


def failure_of(unseen: Numbered | None) -> Failure:
    """What became of an attempt that has left no success.

    Nothing in a cluster deletes our Jobs by itself, so one that is gone was stopped by somebody: a disruption. That
    the Job is still there and its pod is not may be a failure as well.
    """
    if unseen is None:
        message = "its Job was deleted, and the store has no result of it"
        return Failure(reason=FailureReason.POD_DELETED, message=message)
    message = "its pod is gone, nobody saw how it ended, and the store has no result of it"
    return Failure(reason=FailureReason.UNKNOWN, message=message)


def has_advanced(draft: Draft) -> bool:
    """Whether the attempt has told of a newer checkpoint than those before it left."""
    return _checkpoint(draft) > queueing.best_checkpoint(draft)


def _checkpoint(draft: Draft) -> int:
    return (draft.progress.checkpoint_step if draft.progress else None) or 0


def note(draft: Draft, unseen: Numbered | None, failure: Failure | None, now: datetime) -> None:
    """Write down that the attempt is over; `failure` is None where the store knows its success."""
    run = draft.run
    assert run is not None
    used = queueing.usage_of(draft, unseen.number, unseen.job, now) if unseen else limits.Usage(0, 0)
    attempt = Attempt(
        number=run.attempt,
        run=run.key[:12],
        reason=failure.reason.value if failure else "Succeeded",
        message=failure.message if failure else "",
        finished_at=(finished_at(unseen.job) if unseen else None) or now.replace(microsecond=0),
        step=draft.progress.step if draft.progress else 0,
        checkpoint_step=_checkpoint(draft) or None,
    )
    draft.note(attempt, used)


def look_up(draft: Draft, now: datetime) -> ResolveResult | None:
    """What the store says of the run; None while that is not known, with the conditions saying so."""
    run = draft.run
    assert run is not None
    message = f"attempt {run.attempt} is gone and nobody saw how it ended: looking in the store"
    draft.conditions.set("Running", None, "AttemptLost", message)
    draft.conditions.waiting("AttemptLost", message)
    due = draft.conditions.since("Running") + PATIENCE
    if due > now:
        draft.wake(seconds_until([due], now))
        return None
    key = hashlib.sha256(f"{run.key}/{run.attempt}/{draft.attempts_total}".encode()).hexdigest()[:32]
    draft.resolve_run = key[:16]
    state = oneshot.state_of(
        draft.observed,
        resolving.ROLE,
        key,
        parse=ResolveResult.from_message,
        failure_in=lambda result: result.failure,
        latched=draft.job.status.stage_failure,
        generation=draft.job.metadata.generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            return result
        case oneshot.GivenUp():
            # The store cannot be asked. A new attempt asks it again before it trains.
            return ResolveResult()
        case oneshot.Working() as working:
            draft.stage_failure = working.failure
            draft.wake(seconds_until([working.until], now))
        case oneshot.Outdated(outdated):
            draft.delete += with_plan(draft.observed, outdated)
        case oneshot.Wanted() as wanted:
            draft.stage_failure = wanted.failure
            draft.wake(oneshot.wait_for(wanted, now))
            if oneshot.is_due(wanted, now):
                draft.make(resolving.build(draft.job, run.key, key, wanted.number, draft.observed.settings))
    return None
