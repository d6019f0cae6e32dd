"""An edit of `spec.evaluation` after success: the artifact is measured anew, and nothing is trained."""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from finetune_contract.evaluating import EvaluationResult, Score
from finetune_operator.api.figures import ScoreStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import Run
from finetune_operator.manifests import evaluating
from finetune_operator.manifests.training import evaluation_key
from finetune_operator.reconcile import comparisons, costs, oneshot
from finetune_operator.reconcile.draft import EVALUATED, SUSPENDED, Draft
from finetune_operator.reconcile.measurable import METRIC_UNFIT, unmeasurable
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import seconds_until, with_plan

MAX_SCORES = 40
"""Entries that the list in status holds: a status that the API server refuses would be a wedge."""


def keep(draft: Draft, run: Run, scores: Iterable[Score], key: str | None) -> None:
    """Take over what was measured, and for which wish; an older trainer does not say, and is believed."""
    draft.evaluation_key = key or evaluation_key(draft.job, run)
    draft.evaluation = [
        ScoreStatus(
            metric=score.metric.value,
            system=score.system,
            value=score.value,
            low=score.low,
            high=score.high,
            rows=score.rows,
            difference=score.difference,
            difference_low=score.difference_low,
            difference_high=score.difference_high,
            p_value=score.p_value,
        )
        for score in list(scores)[:MAX_SCORES]
    ]


def bring_up_to_date(draft: Draft, job: FineTuneJob, run: Run, now: datetime) -> bool:
    """Whether what was measured is what the spec asks for; if not, see to it, with the conditions saying so."""
    wanted = evaluation_key(job, run)
    lack = comparisons.lack_of(job, run, draft.observed) if job.spec.evaluation.metrics else None
    if lack:
        draft.conditions.set(EVALUATED, False, lack.reason, lack.message)
        (draft.conditions.stalled if lack.is_final else draft.conditions.waiting)(lack.reason, lack.message)
        return False
    if draft.evaluation_key in (wanted, None):
        draft.evaluation_key = wanted
        return True
    if not job.spec.evaluation.metrics:
        keep(draft, run, (), wanted)
        return True
    if message := unmeasurable(job, draft.observed):
        draft.conditions.set(EVALUATED, False, METRIC_UNFIT, message)
        draft.conditions.stalled(METRIC_UNFIT, message)
        return False
    if job.spec.suspend:
        message = "spec.suspend is true: the edited spec.evaluation is measured when it goes on"
        draft.conditions.set(EVALUATED, False, SUSPENDED, message)
        draft.conditions.set(SUSPENDED, True, SUSPENDED, message)
        draft.conditions.idle(SUSPENDED, message)
        return False
    return _measure(draft, job, run, wanted, now)


def _measure(draft: Draft, job: FineTuneJob, run: Run, wanted: str, now: datetime) -> bool:
    """Whether the evaluation Job has answered."""
    artifact = draft.made_by(run)
    assert artifact is not None
    key = hashlib.sha256(f"{artifact.digest}/{wanted}".encode()).hexdigest()[:32]
    draft.evaluation_run = key[:16]
    state = oneshot.state_of(
        draft.observed,
        evaluating.ROLE,
        key,
        parse=EvaluationResult.from_message,
        failure_in=lambda result: result.failure,
        latched=job.status.evaluation_failure,
        generation=job.metadata.generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            keep(draft, run, result.evaluation, wanted)
            draft.speed = costs.keep_speed(job, result.speed, draft.cost, draft.observed.settings) or draft.speed
            draft.evaluation_run = None
            draft.events.append(Event("Normal", "Evaluated", "measured as the edited spec.evaluation says"))
            return True
        case oneshot.GivenUp(failure):
            draft.evaluation_failure = failure
            draft.conditions.set(EVALUATED, False, failure.reason, failure.message)
            draft.conditions.stalled(failure.reason, f"spec.evaluation: {oneshot.explain(failure)}")
            if job.status.evaluation_failure != failure:
                draft.events.append(Event("Warning", failure.reason, failure.message))
        case oneshot.Working() as working:
            draft.evaluation_failure = working.failure
            draft.wake(seconds_until([working.until], now))
            _waits(draft, *working.condition("Evaluating", "measuring as the edited spec.evaluation says"))
        case oneshot.Outdated(outdated):
            draft.delete += with_plan(draft.observed, outdated)
            _waits(draft, "Evaluating", "starting again as the edited spec says")
        case oneshot.Wanted() as wish:
            draft.evaluation_failure = wish.failure
            draft.wake(oneshot.wait_for(wish, now))
            _waits(draft, "Evaluating", "starting to measure as the edited spec.evaluation says")
            if oneshot.is_due(wish, now):
                draft.make(evaluating.build(job, run, artifact, key, wish.number, draft.observed.settings))
    return False


def _waits(draft: Draft, reason: str, message: str) -> None:
    draft.conditions.set(EVALUATED, False, reason, message)
    draft.conditions.waiting(reason, message)
