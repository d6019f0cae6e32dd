"""The attempts of a run: one Job each; the outcome of one is latched before the next begins."""

from datetime import datetime, timedelta

from pydantic import ValidationError

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import Progress, TrainingResult
from finetune_operator.api.base import BaseStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import (
    ArtifactStatus,
    Attempt,
    ProgressStatus,
    Run,
    RunRecord,
    ScoreStatus,
    TimingStatus,
)
from finetune_operator.manifests import training
from finetune_operator.reconcile import warnings
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.endings import (
    Ending,
    Numbered,
    ending_of,
    generation_of,
    is_outdated,
    last_word_at,
    numbered,
    trouble_of,
)
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import seconds_until, with_plan

MAX_STALLED_DISRUPTIONS = 5
"""Disruptions in a row without a newer checkpoint after which going on would only burn money."""

MESSAGE_LIMIT = 1024
"""Characters of a message that an attempt in status keeps."""

MAX_SCORES = 40
MAX_TIMINGS = 8
"""Entries that the lists in status hold: a status that the API server refuses would be a wedge."""


def advance(draft: Draft, job: FineTuneJob, run: Run, observed: Observed, now: datetime) -> None:
    """Latch attempts that ended, then decide: done, failed, running, or one more attempt."""
    draft.run = run
    all_attempts = numbered(observed.of("Job"), training.ROLE, run.key)
    latched = max((attempt.number for attempt in draft.attempts), default=0)
    current: Numbered | None = None
    for attempt in all_attempts:
        # What a run did before it succeeded decides nothing, should the status have to be made anew.
        if attempt.number <= latched or draft.has_succeeded(run):
            continue
        ending = ending_of(attempt.job, observed.of("Pod"), now)
        if ending is None:
            current = attempt
            continue
        _latch(draft, job, run, attempt, ending)
        latched = attempt.number
    if draft.has_succeeded(run):
        _succeeded(draft)
    elif current:
        _follow(draft, current, run, observed, now)
    elif draft.record_of(run) is None or draft.run.generation != job.metadata.generation:
        _start(draft, job, draft.run, latched + 1, observed)


def adopt(draft: Draft, run: Run, result: TrainingResult) -> None:
    """Take over what an earlier training of the same run left in the store."""
    _keep(draft, run, result)
    draft.progress = _final_progress(result)
    draft.events.append(Event("Normal", "Reused", f"run {run.key[:12]} has succeeded before; nothing is trained"))


def _latch(draft: Draft, job: FineTuneJob, run: Run, attempt: Numbered, ending: Ending) -> None:
    """Write down how an attempt ended, and what follows from it."""
    number = attempt.number
    result = _result_of(ending, run)
    failure = result if isinstance(result, Failure) else result.failure
    said = result if isinstance(result, TrainingResult) else None
    before = max((entry.checkpoint_step or 0 for entry in draft.attempts), default=0)
    checkpoint = _checkpoint_step(draft, said)
    draft.attempts.append(
        Attempt(
            number=number,
            run=run.key[:12],
            reason=failure.reason.value if failure else "Succeeded",
            message=failure.message[:MESSAGE_LIMIT] if failure else "",
            node=ending.node,
            seconds=ending.seconds,
            step=said.step if said else 0,
            resumed_from_step=said.resumed_from_step if said else None,
            checkpoint_step=checkpoint,
        )
    )
    draft.attempts_total += 1
    if failure is None:
        assert said is not None
        _keep(draft, run, said)
        draft.progress = _final_progress(said)
        draft.events.append(Event("Normal", "Succeeded", f"attempt {number} made {draft.runs[-1].artifact_digest}"))
        return
    _count(draft, failure, advanced=(checkpoint or 0) > before)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {number}: {failure.message}"[:1000]))
    verdict = _verdict(draft, job, failure)
    if verdict:
        # An edit that came after this attempt was started has not been tried yet.
        generation = generation_of(attempt.job, job.metadata.generation)
        _fail(draft, run.model_copy(update={"generation": generation}), verdict)


def _checkpoint_step(draft: Draft, said: TrainingResult | None) -> int | None:
    """Step of the newest checkpoint: by the pod's last word, or where it died without one, by its progress."""
    if said is not None:
        return said.checkpoint_step
    return draft.progress.checkpoint_step if draft.progress else None


def _result_of(ending: Ending, run: Run) -> TrainingResult | Failure:
    """The pod's own word where it left one, else Kubernetes'."""
    try:
        result = TrainingResult.model_validate_json(ending.message)
    except ValidationError as error:
        return ending.failure or Failure(
            reason=FailureReason.CONTRACT_VIOLATION,
            message=f"the trainer ended with exit code 0 but left no valid result: {error.errors()[0]['msg']}",
        )
    if result.run_key != run.key:
        return Failure(
            reason=FailureReason.CONTRACT_VIOLATION, message=f"the trainer reported run {result.run_key[:12]}"
        )
    return result


def _count(draft: Draft, failure: Failure, *, advanced: bool) -> None:
    counts = policy_of(failure.reason).counts
    draft.retries_used += counts
    draft.stalled_disruptions = 0 if advanced else draft.stalled_disruptions + (not counts)


def _verdict(draft: Draft, job: FineTuneJob, failure: Failure) -> Failure | None:
    """The failure that ends the run; None if another attempt is to be made."""
    policy = policy_of(failure.reason)
    if not policy.retried:
        return failure
    if policy.counts and draft.retries_used > job.spec.retries.limit:
        limit = job.spec.retries.limit
        return Failure(reason=failure.reason, message=f"{failure.message} (spec.retries.limit: {limit} used up)"[:1024])
    if draft.stalled_disruptions >= MAX_STALLED_DISRUPTIONS:
        return Failure(
            reason=FailureReason.NO_PROGRESS,
            message=f"{draft.stalled_disruptions} disruptions in a row, the last: {failure.message}",
        )
    return None


def _fail(draft: Draft, run: Run, failure: Failure) -> None:
    """The verdict stands until somebody edits the spec."""
    draft.run = run
    draft.runs = [*_others(draft, run), RunRecord(key=run.key, outcome="Failed")]
    message = f"{failure.message.rstrip('.')}. {policy_of(failure.reason).remedy}"
    draft.conditions.set("Running", False, failure.reason.value)
    draft.conditions.set("Complete", False, failure.reason.value)
    draft.conditions.set("Failed", True, failure.reason.value, message)
    draft.conditions.stalled(failure.reason.value, message)


def _keep(draft: Draft, run: Run, result: TrainingResult) -> None:
    """The run has succeeded: its artifact and scores are the job's."""
    artifact = result.artifact
    assert artifact is not None
    warnings.show(draft.conditions, result.warnings)
    draft.artifact = ArtifactStatus(
        digest=artifact.digest,
        uri=artifact.uri,
        type=artifact.type,
        bytes=artifact.bytes,
        base=BaseStatus(digest=artifact.base.digest, uri=artifact.base.uri),
        run=run.key,
    )
    draft.evaluation = [
        ScoreStatus(
            metric=score.metric.value,
            system=score.system,
            value=score.value,
            low=score.low,
            high=score.high,
            rows=score.rows,
        )
        for score in result.evaluation[:MAX_SCORES]
    ]
    timings = result.timings[:MAX_TIMINGS]
    draft.timings = [TimingStatus(stage=timing.stage, seconds=timing.seconds) for timing in timings]
    draft.runs = [*_others(draft, run), RunRecord(key=run.key, outcome="Succeeded", artifact_digest=artifact.digest)]


def _others(draft: Draft, run: Run) -> list[RunRecord]:
    return [record for record in draft.runs if record.key != run.key]


def _final_progress(result: TrainingResult) -> ProgressStatus:
    return ProgressStatus(
        phase="Done",
        step=result.step,
        total_steps=result.total_steps,
        percent=100,
        loss=_shown(result.train_loss),
        eval_loss=_shown(result.best_eval_loss),
        checkpoint_step=result.checkpoint_step,
        resumed_from_step=result.resumed_from_step,
    )


def _succeeded(draft: Draft) -> None:
    assert draft.artifact is not None
    message = f"{draft.artifact.type.value} {draft.artifact.digest}"
    draft.conditions.remove("Failed")
    draft.conditions.set("Running", False, "Succeeded")
    if draft.evaluation:
        draft.conditions.set("Evaluated", True, "Measured", _scores(draft))
    draft.conditions.set("Complete", True, "Succeeded", message)
    draft.conditions.ready("Succeeded", message)


def _scores(draft: Draft) -> str:
    return ", ".join(f"{score.metric} {score.system} {score.value:.3g}" for score in draft.evaluation)


def _follow(draft: Draft, current: Numbered, run: Run, observed: Observed, now: datetime) -> None:
    """Say how far the running attempt is."""
    trouble = trouble_of(current.job, observed.of("Pod"))
    draft.wake(seconds_until([last_word_at(current.job)], now))
    if is_outdated(current.job, observed.of("Pod"), draft.job.metadata.generation):
        draft.delete += with_plan(observed, current.job)
        draft.conditions.set("Running", False, "Starting", f"attempt {current.number}")
        draft.conditions.waiting("Starting", f"starting attempt {current.number} again as the edited spec says")
    elif trouble:
        draft.conditions.set("Running", False, trouble.reason, trouble.message)
        draft.conditions.waiting(trouble.reason, f"attempt {current.number}: {trouble.message}")
    else:
        _tell(draft, current, run, observed.progress)


def _tell(draft: Draft, current: Numbered, run: Run, said: Progress | None) -> None:
    draft.conditions.set("Running", True, "Training", f"attempt {current.number}")
    draft.conditions.waiting("Training", f"attempt {current.number} is running")
    if said is None or said.run_key != run.key or said.attempt != current.number:
        return
    warnings.show(draft.conditions, said.warnings)
    shown = ProgressStatus(
        phase=said.phase.value,
        step=said.step,
        total_steps=said.total_steps,
        percent=said.percent,
        loss=_shown(said.loss),
        eval_loss=_shown(said.eval_loss),
        tokens_per_second=_shown(said.tokens_per_second),
        checkpoint_step=said.checkpoint_step,
        resumed_from_step=said.resumed_from_step,
        estimated_completion_time=said.estimated_completion_time,
        updated_at=said.updated_at.replace(microsecond=0),
    )
    _throttle(draft, shown, said.updated_at, draft.observed.settings.progress_write_seconds)


def _shown(value: float | None) -> float | None:
    """A figure as people read it: `kubectl get` prints all the digits that the status has."""
    return None if value is None else round(value, 4)


def _throttle(draft: Draft, shown: ProgressStatus, said_at: datetime, seconds: float) -> None:
    """Progress is written at most every so often, by the trainer's own clock; a new phase or attempt at once."""
    before = draft.progress
    if before is None or before.updated_at is None or before.phase != shown.phase or before.step > shown.step:
        draft.progress = shown
        return
    wait = (before.updated_at + timedelta(seconds=seconds) - said_at).total_seconds()
    if wait <= 0:
        draft.progress = shown
    elif shown.updated_at != before.updated_at:
        draft.wake(wait)


def _start(draft: Draft, job: FineTuneJob, run: Run, number: int, observed: Observed) -> None:
    """One more attempt: the first, after a failure that may pass, or because an edit reopened a failed run."""
    if run.generation != job.metadata.generation:
        run = run.model_copy(update={"generation": job.metadata.generation})
        draft.reopen(run)
    if draft.progress:
        # What the last attempt was doing is over; how far it came still stands.
        over = {"phase": None, "tokens_per_second": None, "estimated_completion_time": None}
        draft.progress = draft.progress.model_copy(update=over)
    draft.conditions.remove("Failed", "Complete")
    draft.conditions.set("Running", False, "Starting", f"attempt {number}")
    draft.conditions.waiting("Starting", f"starting attempt {number}")
    draft.make(training.build(job, run, number, observed.settings))
