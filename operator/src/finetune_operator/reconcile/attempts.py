"""The attempts of a run: one Job each; the outcome of one is latched before the next begins."""

from datetime import datetime, timedelta

from pydantic import ValidationError

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import Progress, TrainingResult
from finetune_operator.api.base import BaseStatus, seconds_of
from finetune_operator.api.finetunejob import FineTuneJob, OnOutOfMemory
from finetune_operator.api.finetunejobstatus import (
    ArtifactStatus,
    Attempt,
    FigureStatus,
    ProgressStatus,
    Run,
    RunRecord,
    TimingStatus,
)
from finetune_operator.manifests import training
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import LABEL_ROLE, Manifest
from finetune_operator.reconcile import evaluations, limits, multinode, pauses, queueing, vanished, warnings
from finetune_operator.reconcile.draft import EVALUATED, SUSPENDED, Draft
from finetune_operator.reconcile.endings import (
    Ending,
    Numbered,
    ending_of,
    finished_at,
    generation_of,
    is_outdated,
    label_of,
    last_word_at,
    node_of,
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

MAX_TIMINGS = 8
"""Entries that the list in status holds: a status that the API server refuses would be a wedge."""


def advance(draft: Draft, job: FineTuneJob, run: Run, observed: Observed, now: datetime) -> None:
    """Latch attempts that ended, then decide: done, failed, running, or one more attempt."""
    draft.run = run
    if not job.spec.suspend:
        draft.conditions.remove(SUSPENDED)
    all_attempts = numbered(observed.of("Job"), training.ROLE, run.key)
    latched = draft.latched()
    current: Numbered | None = None
    for attempt in all_attempts:
        # What a run did before it succeeded decides nothing, should the status have to be made anew.
        if attempt.number <= latched or draft.has_succeeded(run):
            _end(draft, attempt.job, observed)
            continue
        ending = ending_of(attempt.job, observed.of("Pod"), now)
        if ending is None:
            current = attempt
            continue
        _latch(draft, job, run, attempt, ending, now)
        latched = attempt.number
    if draft.has_succeeded(run):
        _succeeded(draft, run, now)
    elif current:
        _watch_over(draft, job, current, observed, now)
    elif vanished.is_lost(draft, latched):
        _settle(draft, job, now)
    elif job.spec.suspend:
        pause(draft)
    elif draft.record_of(draft.run) is None or draft.run.generation != job.metadata.generation:
        _start(draft, job, draft.run, latched + 1, now)
    _clean_up(draft, job, all_attempts, now)


def _end(draft: Draft, attempt: Manifest, observed: Observed) -> None:
    """An attempt whose outcome stands must not go on: the operator may have died between writing it and stopping it."""
    if finished_at(attempt) is None:
        draft.delete += with_plan(observed, attempt)


def _clean_up(draft: Draft, job: FineTuneJob, all_attempts: list[Numbered], now: datetime) -> None:
    """Let go of Jobs that have ended, and of their pods with the logs, once their outcome has stood long enough."""
    if job.spec.ttl_after_finished is None:
        return
    keep = timedelta(seconds=seconds_of(job.spec.ttl_after_finished))
    done = draft.run is not None and draft.has_succeeded(draft.run)
    known = [entry.job for entry in all_attempts if done or entry.number <= draft.latched()]
    others = [item for item in draft.observed.of("Job") if label_of(item, LABEL_ROLE) != training.ROLE]
    for item in (*known, *others):
        finished = finished_at(item)
        if finished is None:
            continue
        if finished + keep <= now:
            draft.delete += with_plan(draft.observed, item)
        else:
            draft.wake(seconds_until([finished + keep], now))


def _settle(draft: Draft, job: FineTuneJob, now: datetime) -> None:
    """An attempt is gone and nobody saw its end: the store tells whether the run has succeeded."""
    queueing.leave(draft)
    found = vanished.look_up(draft, now)
    if found is None:
        return
    run = draft.run
    assert run is not None
    failure = Failure(reason=FailureReason.UNKNOWN, message="its Job is gone and nobody saw how it ended")
    draft.note(
        Attempt(
            number=run.attempt,
            run=run.key[:12],
            reason="Succeeded" if found.outcome else failure.reason.value,
            message="" if found.outcome else failure.message,
            finished_at=now.replace(microsecond=0),
            step=draft.progress.step if draft.progress else 0,
            checkpoint_step=draft.progress.checkpoint_step if draft.progress else None,
        ),
        limits.Usage(0, 0),
    )
    if found.outcome:
        adopt(draft, run, found.outcome)
        _succeeded(draft, run, now)
        return
    _count(draft, failure, advanced=False)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {run.attempt}: {failure.message}"))
    verdict = _verdict(draft, job, failure)
    if verdict:
        _fail(draft, run, verdict)
    else:
        # The next pass starts the next attempt.
        draft.wake(0)


def _watch_over(draft: Draft, job: FineTuneJob, current: Numbered, observed: Observed, now: datetime) -> None:
    """An attempt goes on, unless it is to pause or has reached a limit."""
    run = draft.run
    assert run is not None
    if run.attempt != current.number:
        run = draft.run = run.model_copy(update={"attempt": current.number})
    used = queueing.usage_of(draft, current.number, current.job, now)
    left = limits.left(job.spec.limits, draft.used.plus(used), limits.accelerators_of(current.job))
    if job.spec.suspend:
        _stop(draft, current, used, SUSPENDED, "spec.suspend: stopped with a checkpoint", now)
        pause(draft)
    elif left is not None and left.seconds <= 0:
        _stop(draft, current, used, left.failure.reason.value, left.failure.message, now)
        draft.events.append(Event("Warning", left.failure.reason.value, left.failure.message))
        _fail(draft, run.model_copy(update={"generation": job.metadata.generation}), left.failure)
    else:
        draft.wake(left.seconds if left else None)
        _follow(draft, current, run, observed, now)


def _stop(draft: Draft, current: Numbered, used: limits.Usage, reason: str, message: str, now: datetime) -> None:
    """Write down where an attempt stands, then delete its Job: its pods get the time to save a checkpoint."""
    progress = draft.progress
    said = draft.observed.progress
    if said is not None and said.attempt == current.number and draft.run and said.run_key == draft.run.key:
        progress = _shown_progress(said)
    draft.progress = progress
    entry = Attempt(
        number=current.number,
        run=draft.run.key[:12] if draft.run else "",
        reason=reason,
        message=message[:MESSAGE_LIMIT],
        node=node_of(current.job, draft.observed.of("Pod")),
        finished_at=now.replace(microsecond=0),
        step=progress.step if progress else 0,
        resumed_from_step=progress.resumed_from_step if progress else None,
        checkpoint_step=progress.checkpoint_step if progress else None,
    )
    draft.note(queueing.close(draft, entry, current.job), used)
    draft.delete += with_plan(draft.observed, current.job)


def pause(draft: Draft, message: str = "set spec.suspend to false to go on from the newest checkpoint") -> None:
    """Nothing runs as long as the spec says so."""
    draft.conditions.remove("Failed")
    draft.conditions.set("Running", False, SUSPENDED)
    draft.conditions.set(SUSPENDED, True, SUSPENDED, f"spec.suspend is true: {message}")
    draft.conditions.idle(SUSPENDED, f"spec.suspend is true: {message}")


def adopt(draft: Draft, run: Run, result: TrainingResult) -> None:
    """Take over what an earlier training of the same run left in the store."""
    _keep(draft, run, result)
    draft.progress = _final_progress(result)
    draft.events.append(Event("Normal", "Reused", f"run {run.key[:12]} has succeeded before; nothing is trained"))


def _latch(draft: Draft, job: FineTuneJob, run: Run, attempt: Numbered, ending: Ending, now: datetime) -> None:
    """Write down how an attempt ended, and what follows from it."""
    number = attempt.number
    result = _result_of(ending, run)
    failure = result if isinstance(result, Failure) else result.failure
    said = result if isinstance(result, TrainingResult) else None
    used = queueing.usage_of(draft, number, attempt.job, now)
    if failure and ending.failure and ending.failure.reason is FailureReason.DEADLINE_EXCEEDED:
        # The kubelet stopped the pod at a limit while no operator was there; the pod only knows that it was stopped.
        left = limits.left(job.spec.limits, draft.used.plus(used), limits.accelerators_of(attempt.job))
        failure = left.failure if left else ending.failure
    before = queueing.best_checkpoint(draft)
    checkpoint = _checkpoint_step(draft, said)
    entry = Attempt(
        number=number,
        run=run.key[:12],
        reason=failure.reason.value if failure else "Succeeded",
        message=failure.message[:MESSAGE_LIMIT] if failure else "",
        node=ending.node,
        finished_at=finished_at(attempt.job),
        step=said.step if said else 0,
        resumed_from_step=said.resumed_from_step if said else None,
        checkpoint_step=checkpoint,
        micro_batch_size=said.micro_batch_size if said else None,
    )
    draft.note(queueing.close(draft, entry, attempt.job), used)
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
        _fail(draft, (draft.run or run).model_copy(update={"generation": generation}), verdict)


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
    can_shrink = failure.reason is FailureReason.GPU_OUT_OF_MEMORY and shrunk_micro_batch(draft, job) is not None
    if not policy.retried and not can_shrink:
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


def shrunk_micro_batch(draft: Draft, job: FineTuneJob) -> int | None:
    """Half of what did not fit the GPU, where the user asked for that; None where there is nothing to shrink."""
    if job.spec.retries.on_out_of_memory is not OnOutOfMemory.SHRINK_MICRO_BATCH:
        return None
    reason = FailureReason.GPU_OUT_OF_MEMORY.value
    tried = [attempt.micro_batch_size for attempt in draft.attempts if attempt.reason == reason]
    sizes = [size for size in tried if size is not None]
    half = min(sizes, default=0) // 2
    return half or None


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
    evaluations.keep(draft, result.evaluation, result.evaluation_key)
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


def _succeeded(draft: Draft, run: Run, now: datetime) -> None:
    """The run has its artifact; what is left is to measure it as the spec says now."""
    assert draft.artifact is not None
    message = f"{draft.artifact.type.value} {draft.artifact.digest}"
    draft.conditions.remove("Failed", SUSPENDED)
    draft.conditions.set("Running", False, "Succeeded")
    draft.conditions.set("Complete", True, "Succeeded", message)
    if not evaluations.bring_up_to_date(draft, draft.job, run, now):
        return
    if draft.evaluation:
        draft.conditions.set(EVALUATED, True, "Measured", _scores(draft))
    else:
        draft.conditions.remove(EVALUATED)
    draft.conditions.ready("Succeeded", message)


def _scores(draft: Draft) -> str:
    return ", ".join(f"{score.metric} {score.system} {score.value:.3g}" for score in draft.evaluation)


def _follow(draft: Draft, current: Numbered, run: Run, observed: Observed, now: datetime) -> None:
    """Say how far the running attempt is."""
    trouble = trouble_of(current.job, observed.of("Pod"), observed.reports)
    draft.wake(seconds_until([last_word_at(current.job)], now))
    is_queued = queueing.follow(draft, current.number, current.job, now)
    if is_queued and draft.stalled_disruptions >= MAX_STALLED_DISRUPTIONS:
        _give_up(draft, current, now)
    elif is_outdated(current.job, observed.of("Pod"), draft.job.metadata.generation) and not queueing.is_as_wanted(
        current.job, _build(draft, run, current.number)
    ):
        draft.run = run.model_copy(update={"attempt": current.number - 1})
        draft.delete += with_plan(observed, current.job)
        draft.conditions.set("Running", False, "Starting", f"attempt {current.number}")
        draft.conditions.waiting("Starting", f"starting attempt {current.number} again as the edited spec says")
    elif is_queued:
        pass
    elif trouble:
        draft.conditions.set("Running", False, trouble.reason, trouble.message)
        draft.conditions.waiting(trouble.reason, f"attempt {current.number}: {trouble.advice}")
    else:
        _tell(draft, current, run, observed.progress)


def _give_up(draft: Draft, current: Numbered, now: datetime) -> None:
    """Kueue has stopped the attempt again and again before it could save anything: it leaves the queue."""
    message = f"{draft.stalled_disruptions} disruptions in a row, the last: preempted by Kueue"
    failure = Failure(reason=FailureReason.NO_PROGRESS, message=message)
    used = queueing.usage_of(draft, current.number, current.job, now)
    _stop(draft, current, used, failure.reason.value, message, now)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {current.number}: {message}"))
    assert draft.run is not None
    generation = generation_of(current.job, draft.job.metadata.generation)
    _fail(draft, draft.run.model_copy(update={"generation": generation}), failure)


def _shown_progress(said: Progress) -> ProgressStatus:
    return ProgressStatus(
        phase=said.phase.value,
        step=said.step,
        total_steps=said.total_steps,
        percent=said.percent,
        loss=_shown(said.loss),
        eval_loss=_shown(said.eval_loss),
        figures=[FigureStatus(name=name, value=round(value, 4)) for name, value in said.figures.items()],
        tokens_per_second=_shown(said.tokens_per_second),
        checkpoint_step=said.checkpoint_step,
        resumed_from_step=said.resumed_from_step,
        estimated_completion_time=said.estimated_completion_time,
        updated_at=said.updated_at.replace(microsecond=0),
    )


def _tell(draft: Draft, current: Numbered, run: Run, said: Progress | None) -> None:
    draft.conditions.set("Running", True, "Training", f"attempt {current.number}")
    draft.conditions.waiting("Training", f"attempt {current.number} is running")
    if said is None or said.run_key != run.key or said.attempt != current.number:
        return
    warnings.show(draft.conditions, said.warnings)
    shown = _shown_progress(said)
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


def _start(draft: Draft, job: FineTuneJob, run: Run, number: int, now: datetime) -> None:
    """One more attempt: the first, after a failure that may pass, or because an edit reopened a failed run."""
    if refused := multinode.refusal(job, draft.observed):
        draft.conditions.set("Running", False, refused.reason.value, refused.message)
        draft.conditions.stalled(refused.reason.value, refused.message)
        return
    if run.generation != job.metadata.generation:
        run = run.model_copy(update={"generation": job.metadata.generation})
        draft.reopen(run)
    left = _left(draft)
    if left is not None and left.seconds <= 0:
        _fail(draft, run, left.failure)
        return
    if draft.progress:
        draft.progress = draft.progress.at_rest()
    queueing.leave(draft)
    draft.conditions.remove("Failed", "Complete")
    draft.conditions.set("Running", False, "Starting", f"attempt {number}")
    wait = pauses.before_next(draft, now)
    if wait is not None:
        draft.conditions.waiting(wait.reason, f"attempt {number}: {wait.message}")
        draft.wake(wait.seconds)
        return
    draft.conditions.waiting("Starting", f"starting attempt {number}")
    if draft.make(_build(draft, run, number)):
        draft.run = run.model_copy(update={"attempt": number})


def _left(draft: Draft) -> limits.Left | None:
    """What the attempts that are over leave for one more."""
    spec = draft.job.spec
    return limits.left(spec.limits, draft.used, accelerators(spec.resources) * spec.parallelism.nodes)


def _build(draft: Draft, run: Run, number: int) -> tuple[Manifest, ...]:
    """An attempt as the spec and the attempts before it ask for."""
    left = _left(draft)
    terms = training.Terms(
        micro_batch_size=shrunk_micro_batch(draft, draft.job), seconds=left.seconds if left else None
    )
    return training.build(draft.job, run, number, draft.observed.settings, terms)
