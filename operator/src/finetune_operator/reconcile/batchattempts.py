"""The attempts of a BatchInference's run: one Job each; the outcome of one is latched before the next begins.

Every attempt goes on from the shards that earlier ones left in the store, so nothing has to be known of an attempt that
nobody saw the end of: the next one finds what it did.
"""

from datetime import timedelta

from finetune_contract.batching import BatchProgress
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.api.base import JobFailure
from finetune_operator.api.batchinferencestatus import (
    BatchAttempt,
    BatchProgressStatus,
    BatchRun,
)
from finetune_operator.manifests import batch as manifests
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import LABEL_QUEUE, LABEL_ROLE, Manifest
from finetune_operator.reconcile import batchrecord, limits, pauses
from finetune_operator.reconcile.admission import patience_ends, waits_for
from finetune_operator.reconcile.batchdraft import BatchDraft
from finetune_operator.reconcile.draft import SUSPENDED
from finetune_operator.reconcile.endings import (
    Numbered,
    ending_of,
    finished_at,
    has_ended,
    is_outdated,
    label_of,
    last_word_at,
    name_of,
    node_of,
    numbered,
    pods_of,
    trouble_of,
)
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.queueing import ADMITTED, ORDINARY, is_as_wanted
from finetune_operator.reconcile.record import MESSAGE_LIMIT
from finetune_operator.reconcile.resources import seconds_until, with_plan


def advance(draft: BatchDraft, run: BatchRun) -> None:
    """Latch attempts that ended, then decide: done, failed, running, or one more attempt."""
    draft.run = run
    current: Numbered | None = None
    jobs = numbered(draft.observed.of("Job"), manifests.ROLE, run.key)
    for attempt in jobs:
        if attempt.number <= draft.latched() or draft.is_done():
            draft.end(attempt.job)
            continue
        ending = ending_of(attempt.job, draft.observed.of("Pod"), draft.now)
        if ending is None:
            current = attempt
        else:
            batchrecord.latch(draft, attempt, ending)
    if draft.is_done():
        _succeeded(draft)
    elif current:
        _watch_over(draft, current)
    elif draft.batch.spec.suspend:
        pause(draft)
    elif draft.failure is None or _is_edited(draft):
        _start(draft)
    else:
        _failed(draft, draft.failure)
    # With their pods and logs, once their outcome has stood long enough.
    known = [attempt.job for attempt in jobs if attempt.number <= draft.latched()]
    draft.let_go(known, draft.batch.spec.ttl_after_finished, draft.now)


def pause(draft: BatchDraft) -> None:
    """Nothing runs as long as the spec says so."""
    message = "spec.suspend is true: set it to false to go on from what was answered"
    draft.conditions.remove("Failed", ADMITTED)
    draft.conditions.set("Running", False, SUSPENDED)
    draft.conditions.set(SUSPENDED, True, SUSPENDED, message)
    draft.conditions.idle(SUSPENDED, message)
    batchrecord.at_rest(draft)


def stop(draft: BatchDraft, current: Numbered, reason: str, message: str) -> None:
    """Write down where an attempt stands, then delete its Job; the shard in hand is lost."""
    used = limits.usage_of(current.job, draft.observed.of("Pod"), draft.now)
    _tell(draft, draft.observed.batch_progress)
    draft.note(
        BatchAttempt(
            number=current.number,
            run=batchrecord.run_of(draft).key[:12],
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            node=node_of(current.job, draft.observed.of("Pod")),
            finished_at=draft.now.replace(microsecond=0),
            rows=batchrecord.kept_rows(draft),
        ),
        used,
    )
    draft.delete += with_plan(draft.observed, current.job)
    draft.conditions.remove(ADMITTED)
    batchrecord.at_rest(draft)


def _is_edited(draft: BatchDraft) -> bool:
    return batchrecord.run_of(draft).generation != draft.batch.metadata.generation


def _succeeded(draft: BatchDraft) -> None:
    output = draft.output
    assert output is not None
    message = f"{output.succeeded} of {output.rows} rows were answered, {output.failed} failed: {output.uri}"
    draft.conditions.remove("Failed", SUSPENDED)
    draft.conditions.set("Running", False, "Succeeded")
    draft.conditions.set("Complete", True, "Succeeded", message)
    draft.conditions.ready("Succeeded", message)


def _failed(draft: BatchDraft, failure: JobFailure) -> None:
    """The verdict stands until somebody edits the spec."""
    message = f"{failure.message.rstrip('.')}. {policy_of(FailureReason(failure.reason)).remedy}"
    draft.conditions.set("Running", False, failure.reason)
    draft.conditions.set("Complete", False, failure.reason)
    draft.conditions.set("Failed", True, failure.reason, message)
    draft.conditions.stalled(failure.reason, message)


def _watch_over(draft: BatchDraft, current: Numbered) -> None:
    """An attempt goes on, unless it is to pause or has reached a limit."""
    run = batchrecord.run_of(draft)
    if run.attempt != current.number:
        run = draft.run = run.model_copy(update={"attempt": current.number})
    spec = draft.batch.spec
    used = draft.used.plus(limits.usage_of(current.job, draft.observed.of("Pod"), draft.now))
    left = limits.left(spec.limits, used, limits.accelerators_of(current.job))
    if spec.suspend:
        stop(draft, current, SUSPENDED, "spec.suspend: stopped")
        pause(draft)
    elif left is not None and left.seconds <= 0:
        stop(draft, current, left.failure.reason.value, left.failure.message)
        draft.events.append(Event("Warning", left.failure.reason.value, left.failure.message))
        _give_up(draft, left.failure, name_of(current.job))
    else:
        draft.wake(left.seconds if left else None)
        draft.wake(seconds_until([last_word_at(current.job)], draft.now))
        _follow(draft, current, run)


def _give_up(draft: BatchDraft, failure: Failure, job: str) -> None:
    draft.failure = JobFailure(job=job, reason=failure.reason.value, message=failure.message[:MESSAGE_LIMIT])
    draft.run = batchrecord.run_of(draft).model_copy(update={"generation": draft.batch.metadata.generation})
    _failed(draft, draft.failure)


def _follow(draft: BatchDraft, current: Numbered, run: BatchRun) -> None:
    """Say how far the running attempt is."""
    job, number = current.job, current.number
    queue = label_of(job, LABEL_QUEUE)
    held_back = waits_for(job, draft.observed.admissions.get(job["metadata"]["uid"]), draft.now)
    trouble = trouble_of(job, draft.observed.of("Pod"), draft.observed.reports)
    if is_outdated(job, draft.observed.of("Pod"), draft.batch.metadata.generation) and not is_as_wanted(
        job, _build(draft, run, number)
    ):
        draft.run = run.model_copy(update={"attempt": number - 1})
        draft.delete += with_plan(draft.observed, job)
        draft.conditions.set("Running", False, "Starting", f"attempt {number}")
        draft.conditions.waiting("Stopping", f"starting attempt {number} again as the edited spec says")
    elif held_back:
        reason = "Queued" if held_back.reason in ORDINARY else held_back.reason
        draft.conditions.set(ADMITTED, False, held_back.reason, held_back.message)
        draft.conditions.set("Running", False, reason, f"attempt {number}")
        draft.conditions.waiting(reason, f"attempt {number}: {held_back.message}")
        draft.wake(seconds_until([patience_ends(job, draft.now)], draft.now))
        batchrecord.at_rest(draft)
    else:
        if queue:
            draft.conditions.set(ADMITTED, True, "Admitted", f"by queue {queue}")
        else:
            draft.conditions.remove(ADMITTED)
        if trouble:
            draft.conditions.set("Running", False, trouble.reason, trouble.message)
            draft.conditions.waiting(trouble.reason, f"attempt {number}: {trouble.advice}")
        else:
            draft.conditions.set("Running", True, "Answering", f"attempt {number}")
            draft.conditions.waiting("Answering", f"attempt {number} is running")
            _tell(draft, draft.observed.batch_progress)


def _tell(draft: BatchDraft, said: BatchProgress | None) -> None:
    """Take over what the pod says, at most every so often by its own clock; a new phase at once."""
    if said is None or said.key != batchrecord.run_of(draft).key:
        return
    shown = BatchProgressStatus(
        phase=said.phase.value,
        rows=said.counts.rows,
        kept_rows=said.kept_rows,
        total_rows=said.total_rows,
        failed=said.counts.failed,
        percent=said.percent,
        tokens_per_second=said.tokens_per_second,
        estimated_completion_time=said.estimated_completion_time,
        updated_at=said.updated_at.replace(microsecond=0),
    )
    before = draft.progress
    if before is not None and before.updated_at is not None and before.phase == shown.phase:
        pause_ = timedelta(seconds=draft.observed.settings.progress_write_seconds)
        wait = (before.updated_at + pause_ - said.updated_at).total_seconds()
        if wait > 0:
            if shown.updated_at != before.updated_at:
                draft.wake(wait)
            return
    draft.progress = shown


def _start(draft: BatchDraft) -> None:
    """One more attempt: the first, after a failure that may pass, or because an edit reopened a failed run."""
    run, number = batchrecord.run_of(draft), draft.latched() + 1
    if _is_edited(draft):
        run = draft.run = run.model_copy(update={"generation": draft.batch.metadata.generation})
        draft.failure = None
        draft.retries_used = draft.stalled_disruptions = 0
    left = _left(draft)
    if left is not None and left.seconds <= 0:
        _give_up(draft, left.failure, "")
        return
    draft.conditions.remove("Failed", "Complete", ADMITTED)
    draft.conditions.set("Running", False, "Starting", f"attempt {number}")
    if _is_occupied(draft):
        draft.conditions.waiting("Stopping", f"starting attempt {number} when the pod before it was told to end")
        return
    wait = _pause_before_next(draft)
    if wait is not None:
        draft.conditions.waiting(wait.reason, f"attempt {number}: {wait.message}")
        draft.wake(wait.seconds)
        return
    if draft.start_attempt(number, _build(draft, run, number)):
        draft.run = run.model_copy(update={"attempt": number})


def _is_occupied(draft: BatchDraft) -> bool:
    """Whether an earlier attempt or run has a Job or pod that nobody has told to end yet: a batch has one pod at once.

    The operator may have died between writing that an attempt was stopped and stopping it, and a Job that is gone
    leaves its pods to the garbage collector.
    """
    jobs, pods = (
        [item for item in draft.observed.of(kind) if label_of(item, LABEL_ROLE) == manifests.ROLE]
        for kind in ("Job", "Pod")
    )
    # A pod's last state may come later than its Job's.
    over = {pod["metadata"]["uid"] for job in jobs if finished_at(job) for pod in pods_of(job, pods)}
    left = [job for job in jobs if not finished_at(job)]
    left += [pod for pod in pods if pod["metadata"]["uid"] not in over and not has_ended(pod)]
    return any(not item["metadata"].get("deletionTimestamp") for item in left)


def _pause_before_next(draft: BatchDraft) -> pauses.Wait | None:
    last = next((each for each in reversed(draft.attempts) if each.run == batchrecord.run_of(draft).key[:12]), None)
    if last is None or last.finished_at is None or last.reason == SUSPENDED:
        return None
    return pauses.after_failure(
        pauses.Last(last.reason, last.finished_at),
        draft.retries_used,
        draft.stalled_disruptions,
        draft.observed.settings.retry_seconds,
        draft.now,
    )


def _left(draft: BatchDraft) -> limits.Left | None:
    """What the attempts that are over leave for one more."""
    spec = draft.batch.spec
    return limits.left(spec.limits, draft.used, accelerators(spec.resources))


def _build(draft: BatchDraft, run: BatchRun, number: int) -> tuple[Manifest, ...]:
    left = _left(draft)
    return manifests.build(draft.batch, run, number, draft.observed.settings, left.seconds if left else None)
