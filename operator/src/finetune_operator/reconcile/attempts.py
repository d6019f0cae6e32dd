"""The attempts of a run: one Job each; the outcome of one is latched before the next begins."""

from datetime import datetime, timedelta

from pydantic import ValidationError

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import TrainingResult
from finetune_operator.api.finetunejob import (
    ArtifactStatus,
    Attempt,
    BaseStatus,
    FineTuneJob,
    ProgressStatus,
    Run,
    RunRecord,
    ScoreStatus,
    TimingStatus,
)
from finetune_operator.manifests import training
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.endings import Ending, Numbered, ending_of, numbered, trouble_of
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import missing_claim

MAX_STALLED_DISRUPTIONS = 5
"""Disruptions in a row without a newer checkpoint after which going on would only burn money."""

MESSAGE_LIMIT = 1024
"""Characters of a message that an attempt in status keeps."""


def advance(draft: Draft, job: FineTuneJob, run: Run, observed: Observed, now: datetime) -> None:
    """Latch attempts that ended, then decide: done, failed, running, or one more attempt."""
    draft.run = run
    all_attempts = numbered(observed.of("Job"), training.ROLE, run.key)
    latched = max((attempt.number for attempt in draft.attempts), default=0)
    current: Numbered | None = None
    for attempt in all_attempts:
        if attempt.number <= latched:
            continue
        ending = ending_of(attempt.job, observed.of("Pod"))
        if ending is None:
            current = attempt
            continue
        _latch(draft, job, run, attempt.number, ending)
        latched = attempt.number
    record = _record_of(draft, run)
    if record and record.outcome == "Succeeded":
        _succeeded(draft)
    elif current:
        _follow(draft, current, run, observed, now)
    elif record is None or draft.run.generation != job.metadata.generation:
        _start(draft, job, draft.run, latched + 1, observed)


def adopt(draft: Draft, run: Run, result: TrainingResult) -> None:
    """Take over what an earlier training of the same run left in the store."""
    _keep(draft, run, result)
    draft.progress = _final_progress(result)
    draft.events.append(Event("Normal", "Reused", f"run {run.key[:12]} has succeeded before; nothing is trained"))


def _record_of(draft: Draft, run: Run) -> RunRecord | None:
    return next((record for record in reversed(draft.runs) if record.key == run.key), None)


def _latch(draft: Draft, job: FineTuneJob, run: Run, number: int, ending: Ending) -> None:
    """Write down how an attempt ended, and what follows from it."""
    result = _result_of(ending, run)
    failure = result if isinstance(result, Failure) else result.failure
    said = result if isinstance(result, TrainingResult) else None
    before = max((attempt.checkpoint_step or 0 for attempt in draft.attempts), default=0)
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
            checkpoint_step=said.checkpoint_step if said else None,
        )
    )
    draft.attempts_total += 1
    if failure is None:
        assert said is not None
        _keep(draft, run, said)
        draft.progress = _final_progress(said)
        draft.events.append(Event("Normal", "Succeeded", f"attempt {number} made {draft.runs[-1].artifact_digest}"))
        return
    checkpoint = said.checkpoint_step or 0 if said else 0
    _count(draft, failure, advanced=checkpoint > before)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {number}: {failure.message}"[:1000]))
    verdict = _verdict(draft, job, failure)
    if verdict:
        _fail(draft, job, run, verdict)


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
    if policy_of(failure.reason).counts:
        draft.retries_used += 1
    else:
        draft.stalled_disruptions = 0 if advanced else draft.stalled_disruptions + 1


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
            message=f"{draft.stalled_disruptions} disruptions in a row without a newer checkpoint: {failure.message}",
        )
    return None


def _fail(draft: Draft, job: FineTuneJob, run: Run, failure: Failure) -> None:
    """The verdict stands until somebody edits the spec."""
    draft.run = run.model_copy(update={"generation": job.metadata.generation})
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
        for score in result.evaluation
    ]
    draft.timings = [TimingStatus(stage=timing.stage, seconds=timing.seconds) for timing in result.timings]
    draft.runs = [*_others(draft, run), RunRecord(key=run.key, outcome="Succeeded", artifact_digest=artifact.digest)]


def _others(draft: Draft, run: Run) -> list[RunRecord]:
    return [record for record in draft.runs if record.key != run.key]


def _final_progress(result: TrainingResult) -> ProgressStatus:
    return ProgressStatus(
        phase="Done",
        step=result.step,
        total_steps=result.total_steps,
        percent=100,
        loss=result.train_loss,
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
    if trouble:
        draft.conditions.set("Running", False, trouble.reason, trouble.message)
        draft.conditions.waiting(trouble.reason, f"attempt {current.number}: {trouble.message}")
        return
    draft.conditions.set("Running", True, "Training", f"attempt {current.number}")
    draft.conditions.waiting("Training", f"attempt {current.number} is running")
    said = observed.progress
    if said is None or said.run_key != run.key or said.attempt != current.number:
        return
    shown = ProgressStatus(
        phase=said.phase.value,
        step=said.step,
        total_steps=said.total_steps,
        percent=said.percent,
        loss=said.loss,
        eval_loss=said.eval_loss,
        tokens_per_second=said.tokens_per_second,
        checkpoint_step=said.checkpoint_step,
        resumed_from_step=said.resumed_from_step,
        estimated_completion_time=said.estimated_completion_time,
        updated_at=said.updated_at.replace(microsecond=0),
    )
    _throttle(draft, shown, observed, now)


def _throttle(draft: Draft, shown: ProgressStatus, observed: Observed, now: datetime) -> None:
    """Progress is written at most every so often; a new phase at once."""
    before = draft.progress
    if before is None or before.updated_at is None or before.phase != shown.phase or before.step > shown.step:
        draft.progress = shown
        return
    due = before.updated_at + timedelta(seconds=observed.settings.progress_write_seconds)
    if shown.updated_at != before.updated_at and now >= due:
        draft.progress = shown
    elif shown.updated_at != before.updated_at:
        draft.wake((due - now).total_seconds())


def _start(draft: Draft, job: FineTuneJob, run: Run, number: int, observed: Observed) -> None:
    """One more attempt: the first, after a failure that may pass, or because an edit reopened a failed run."""
    if run.generation != job.metadata.generation:
        draft.run = run = run.model_copy(update={"generation": job.metadata.generation})
        draft.runs = [record for record in draft.runs if record.key != run.key]
        draft.retries_used = draft.stalled_disruptions = 0
    draft.conditions.remove("Failed", "Complete")
    draft.conditions.set("Running", False, "Starting", f"attempt {number}")
    draft.conditions.waiting("Starting", f"starting attempt {number}")
    draft.create += missing_claim(observed, job.metadata.namespace)
    draft.create += training.build(job, run, number, observed.settings)
