"""The attempts of a run: one Job each; the outcome of one is latched before the next begins."""

from datetime import datetime

from finetune_contract.failure import Failure, FailureReason
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import Attempt, Run
from finetune_operator.manifests import training
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import LABEL_ROLE, Manifest
from finetune_operator.reconcile import (
    evaluations,
    exports,
    gates,
    limits,
    multinode,
    pauses,
    preflight,
    queueing,
    record,
    telling,
    truncation,
    vanished,
)
from finetune_operator.reconcile.draft import EVALUATED, GATE_FAILED, SUSPENDED, Draft
from finetune_operator.reconcile.endings import (
    Numbered,
    ending_of,
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


def advance(draft: Draft, job: FineTuneJob, run: Run, observed: Observed, now: datetime) -> None:
    """Latch attempts that ended, then decide: done, failed, running, or one more attempt."""
    draft.run = run
    all_attempts = numbered(observed.of("Job"), training.ROLE, run.key)
    latched = draft.latched()
    current: Numbered | None = None
    unseen: Numbered | None = None
    for attempt in all_attempts:
        # What a run did before it succeeded decides nothing, should the status have to be made anew.
        if attempt.number <= latched or draft.has_succeeded(run):
            draft.end(attempt.job)
            continue
        ending = ending_of(attempt.job, observed.of("Pod"), now)
        if ending is None:
            current = attempt
            continue
        if vanished.is_unseen(ending):
            unseen = attempt
            continue
        record.latch(draft, job, run, attempt, ending, now)
        latched = attempt.number
    if draft.has_succeeded(run):
        _succeeded(draft, run, now)
    elif current:
        _watch_over(draft, job, current, observed, now)
    elif unseen or vanished.is_lost(draft, latched):
        _settle(draft, job, unseen, now)
    elif job.spec.suspend:
        pause(draft)
    elif draft.record_of(draft.run) is None or draft.run.generation != job.metadata.generation:
        _start(draft, job, draft.run, latched + 1, now)
    _clean_up(draft, job, all_attempts, now)


def _clean_up(draft: Draft, job: FineTuneJob, all_attempts: list[Numbered], now: datetime) -> None:
    """Let go of Jobs that have ended, and of their pods with the logs, once their outcome has stood long enough."""
    done = draft.run is not None and draft.has_succeeded(draft.run)
    known = [entry.job for entry in all_attempts if done or entry.number <= draft.latched()]
    others = [item for item in draft.observed.of("Job") if label_of(item, LABEL_ROLE) != training.ROLE]
    draft.let_go((*known, *others), job.spec.ttl_after_finished, now)


def _settle(draft: Draft, job: FineTuneJob, unseen: Numbered | None, now: datetime) -> None:
    """Nobody saw the end of an attempt, whose Job may be there still: the store tells whether the run has succeeded."""
    queueing.leave(draft)
    assert draft.run is not None
    if unseen and draft.run.attempt < unseen.number:
        draft.run = draft.run.model_copy(update={"attempt": unseen.number})
    run = draft.run
    found = vanished.look_up(draft, now)
    if found is None:
        return
    if found.outcome:
        vanished.note(draft, unseen, None, now)
        record.adopt(draft, run, found.outcome)
        _succeeded(draft, run, now)
        return
    failure = vanished.failure_of(unseen)
    advanced = vanished.has_advanced(draft)
    vanished.note(draft, unseen, failure, now)
    record.count(draft, failure, advanced=advanced)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {run.attempt}: {failure.message}"))
    verdict = record.verdict(draft, job, failure)
    if verdict:
        record.fail(draft, run, verdict)
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
        record.fail(draft, run.model_copy(update={"generation": job.metadata.generation}), left.failure)
    else:
        draft.wake(left.seconds if left else None)
        _follow(draft, current, run, observed, now)


def _stop(draft: Draft, current: Numbered, used: limits.Usage, reason: str, message: str, now: datetime) -> None:
    """Write down where an attempt stands, then delete its Job: its pods get the time to save a checkpoint."""
    progress = draft.progress
    said = draft.observed.progress
    if said is not None and said.attempt == current.number and draft.run and said.run_key == draft.run.key:
        progress = telling.shown_progress(said)
    draft.progress = progress
    entry = Attempt(
        number=current.number,
        run=draft.run.key[:12] if draft.run else "",
        reason=reason,
        message=message[: record.MESSAGE_LIMIT],
        node=node_of(current.job, draft.observed.of("Pod")),
        finished_at=now.replace(microsecond=0),
        step=progress.step if progress else 0,
        resumed_from_step=progress.resumed_from_step if progress else None,
        # A pod that is stopped while it loads has not said yet from where it would go on.
        checkpoint_step=(progress and progress.checkpoint_step) or queueing.best_checkpoint(draft) or None,
    )
    draft.note(queueing.close(draft, entry, current.job), used)
    draft.delete += with_plan(draft.observed, current.job)


def pause(draft: Draft, message: str = "set spec.suspend to false to go on from the newest checkpoint") -> None:
    """Nothing runs as long as the spec says so."""
    draft.conditions.remove("Failed")
    draft.conditions.set("Running", False, SUSPENDED)
    draft.conditions.set(SUSPENDED, True, SUSPENDED, f"spec.suspend is true: {message}")
    draft.conditions.idle(SUSPENDED, f"spec.suspend is true: {message}")


def _succeeded(draft: Draft, run: Run, now: datetime) -> None:
    """The run has its artifact; what is left is to measure it as the spec says now, and to have the gate decide."""
    artifact = draft.made_by(run)
    assert artifact is not None
    message = f"{artifact.type.value} {artifact.digest}"
    draft.conditions.remove("Failed", SUSPENDED)
    draft.conditions.set("Running", False, "Succeeded")
    draft.conditions.set("Complete", True, "Succeeded", message)
    gates.await_measurements(draft, run)
    if not evaluations.bring_up_to_date(draft, draft.job, run, now):
        exports.hold(draft, run, "Evaluating", "exports are made when spec.evaluation has been measured")
        return
    if draft.evaluation:
        draft.conditions.set(EVALUATED, True, "Measured", _scores(draft))
    else:
        draft.conditions.remove(EVALUATED)
    if gates.decide(draft, run):
        draft.conditions.ready("Succeeded", message)
        exports.bring_up_to_date(draft, run, now)
    else:
        exports.hold(draft, run, GATE_FAILED, "what the gate refuses is not exported")


def _scores(draft: Draft) -> str:
    return ", ".join(f"{score.metric} {score.system} {score.value:.3g}" for score in draft.evaluation)


def _follow(draft: Draft, current: Numbered, run: Run, observed: Observed, now: datetime) -> None:
    """Say how far the running attempt is."""
    trouble = trouble_of(current.job, observed.of("Pod"), observed.reports)
    draft.wake(seconds_until([last_word_at(current.job)], now))
    is_queued = queueing.follow(draft, current.number, current.job, now)
    if is_queued and draft.stalled_disruptions >= record.MAX_STALLED_DISRUPTIONS:
        _give_up(draft, current, now)
    elif is_outdated(current.job, observed.of("Pod"), draft.job.metadata.generation) and not queueing.is_as_wanted(
        current.job, _build(draft, run, current.number)
    ):
        draft.run = run.model_copy(update={"attempt": current.number - 1})
        draft.delete += with_plan(observed, current.job)
        draft.conditions.set("Running", False, "Starting", f"attempt {current.number}")
        # As the wait for its pods, if they need any time, will say.
        draft.conditions.waiting("Stopping", f"starting attempt {current.number} again as the edited spec says")
    elif is_queued:
        pass
    elif trouble:
        draft.conditions.set("Running", False, trouble.reason, trouble.message)
        draft.conditions.waiting(trouble.reason, f"attempt {current.number}: {trouble.advice}")
    else:
        telling.tell(draft, current, run, observed.progress)


def _give_up(draft: Draft, current: Numbered, now: datetime) -> None:
    """Kueue has stopped the attempt again and again before it could save anything: it leaves the queue."""
    message = f"{draft.stalled_disruptions} disruptions in a row, the last: preempted by Kueue"
    failure = Failure(reason=FailureReason.NO_PROGRESS, message=message)
    used = queueing.usage_of(draft, current.number, current.job, now)
    _stop(draft, current, used, failure.reason.value, message, now)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {current.number}: {message}"))
    assert draft.run is not None
    generation = generation_of(current.job, draft.job.metadata.generation)
    record.fail(draft, draft.run.model_copy(update={"generation": generation}), failure)


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
        record.fail(draft, run, left.failure)
        return
    if draft.progress:
        draft.progress = draft.progress.at_rest()
    queueing.leave(draft)
    draft.conditions.remove("Failed", "Complete")
    if too_short := truncation.refusal(job, run, draft.observed):
        _refuse(draft, too_short)
        return
    draft.conditions.set("Running", False, "Starting", f"attempt {number}")
    if not preflight.passed(draft, job, run, now):
        return
    wait = pauses.before_next(draft, now)
    if wait is not None:
        draft.conditions.waiting(wait.reason, f"attempt {number}: {wait.message}")
        draft.wake(wait.seconds)
        return
    if draft.start_attempt(number, _build(draft, run, number)):
        draft.run = run.model_copy(update={"attempt": number})


def _refuse(draft: Draft, failure: Failure) -> None:
    """What is known to fail is not started; the condition of the pass before says whether that is news."""
    is_new = draft.conditions.said("Running") != (failure.reason.value, "")
    draft.conditions.set("Running", False, failure.reason.value)
    draft.conditions.stalled(failure.reason.value, failure.message)
    if is_new:
        draft.events.append(Event("Warning", failure.reason.value, failure.message[:1000]))


def _left(draft: Draft) -> limits.Left | None:
    """What the attempts that are over leave for one more."""
    spec = draft.job.spec
    return limits.left(spec.limits, draft.used, accelerators(spec.resources) * spec.parallelism.nodes)


def _build(draft: Draft, run: Run, number: int) -> tuple[Manifest, ...]:
    """An attempt as the spec and the attempts before it ask for."""
    left = _left(draft)
    terms = training.Terms(
        micro_batch_size=record.shrunk_micro_batch(draft, draft.job),
        seconds=left.seconds if left else None,
        predicted_peak_bytes=draft.preflight.predicted_peak_bytes if draft.preflight else None,
    )
    return training.build(draft.job, run, number, draft.observed.settings, terms)
