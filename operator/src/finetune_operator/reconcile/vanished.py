"""An attempt whose Job is gone before its end was seen: the store knows what became of it.

Somebody deleted the Job, or it ended and was cleaned up while no operator watched. Training again would be the
expensive answer, so a small CPU Job looks the run up first; until it has, the outcome is unknown.
"""

import hashlib
from datetime import datetime, timedelta

from finetune_contract.results import ResolveResult
from finetune_operator.manifests import resolving
from finetune_operator.reconcile import oneshot
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.resources import seconds_until, with_plan

PATIENCE = timedelta(seconds=3)
"""How long a Job that the status tells of may be missing: watches of two kinds do not arrive together."""


def is_lost(draft: Draft, latched: int) -> bool:
    """Whether an attempt was started whose end nobody has written down (and whose Job the caller does not see)."""
    return draft.run is not None and draft.run.attempt > latched


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
