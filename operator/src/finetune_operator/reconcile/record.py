"""What is written down of attempts: how one ended, what follows from it, and what a run has made."""

from datetime import datetime

from pydantic import ValidationError

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import TrainingResult
from finetune_operator.api.adapterfacts import AdapterFactsStatus
from finetune_operator.api.base import BaseStatus
from finetune_operator.api.figures import TimingStatus
from finetune_operator.api.finetunejob import FineTuneJob, OnOutOfMemory
from finetune_operator.api.finetunejobstatus import ArtifactStatus, Attempt, Run, RunRecord
from finetune_operator.api.gate import Verdict
from finetune_operator.manifests import training
from finetune_operator.reconcile import costs, evaluations, limits, queueing, telling, warnings
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.endings import (
    Ending,
    Numbered,
    finished_at,
    generation_of,
    numbered,
)
from finetune_operator.reconcile.outcome import Event

MAX_STALLED_DISRUPTIONS = 5
"""Disruptions in a row without a newer checkpoint after which going on would only burn money."""

MESSAGE_LIMIT = 1024
"""Characters of a message that an attempt in status keeps."""

MAX_TIMINGS = 8
"""Entries that the list in status holds: a status that the API server refuses would be a wedge."""


def adopt(draft: Draft, run: Run, result: TrainingResult) -> None:
    """Take over what an earlier training of the same run left in the store."""
    _keep(draft, run, result)
    draft.tracking = telling.tracked_runs(result)
    draft.progress = telling.final_progress(result)
    draft.events.append(Event("Normal", "Reused", f"run {run.key[:12]} has succeeded before; nothing is trained"))


def latch(draft: Draft, job: FineTuneJob, run: Run, attempt: Numbered, ending: Ending, now: datetime) -> None:
    """Write down how an attempt ended, and what follows from it."""
    number = attempt.number
    result = _result_of(ending, run)
    failure = result if isinstance(result, Failure) else result.failure
    said = result if isinstance(result, TrainingResult) else None
    if said:
        draft.tracking = telling.tracked_runs(said) or draft.tracking
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
        peak_memory_bytes=said.peak_memory_bytes if said else None,
    )
    draft.note(queueing.close(draft, entry, attempt.job), used)
    if failure is None:
        assert said is not None
        _keep(draft, run, said)
        draft.progress = telling.final_progress(said)
        draft.events.append(Event("Normal", "Succeeded", f"attempt {number} made {draft.runs[-1].artifact_digest}"))
        return
    count(draft, failure, advanced=(checkpoint or 0) > before)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {number}: {failure.message}"[:1000]))
    final = verdict(draft, job, failure)
    if final:
        # An edit that came after this attempt was started has not been tried yet.
        generation = generation_of(attempt.job, job.metadata.generation)
        fail(draft, (draft.run or run).model_copy(update={"generation": generation}), final)


def _checkpoint_step(draft: Draft, said: TrainingResult | None) -> int | None:
    """Step of the newest checkpoint: by the pod's last word, or where it died without one, by its progress."""
    if said is not None:
        return said.checkpoint_step
    return draft.progress.checkpoint_step if draft.progress else None


def _result_of(ending: Ending, run: Run) -> TrainingResult | Failure:
    """The pod's own word where it left one, else Kubernetes'."""
    try:
        result = TrainingResult.from_message(ending.message)
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


def count(draft: Draft, failure: Failure, *, advanced: bool) -> None:
    """Charge a failure to the run: against its retries, or as one more disruption without a newer checkpoint."""
    counts = policy_of(failure.reason).counts
    draft.retries_used += counts
    draft.stalled_disruptions = 0 if advanced else draft.stalled_disruptions + (not counts)


def verdict(draft: Draft, job: FineTuneJob, failure: Failure) -> Failure | None:
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


def fail(draft: Draft, run: Run, failure: Failure) -> None:
    """The verdict stands until somebody edits the spec."""
    draft.run = run
    draft.runs = [*_others(draft, run), RunRecord(key=run.key, outcome="Failed", gpu_seconds=_gpu_seconds(draft.used))]
    message = f"{failure.message.rstrip('.')}. {policy_of(failure.reason).remedy}"
    draft.conditions.set("Running", False, failure.reason.value)
    draft.conditions.set("Complete", False, failure.reason.value)
    draft.conditions.set("Failed", True, failure.reason.value, message)
    draft.conditions.stalled(failure.reason.value, message)


def cancel(draft: Draft, run: Run, other: Run, now: datetime) -> None:
    """A run that has not ended makes way for another one; what its last attempt has used until now is not lost."""
    used = draft.used
    for number, attempt in numbered(draft.observed.of("Job"), training.ROLE, run.key):
        if number > draft.latched():
            used = used.plus(queueing.usage_of(draft, number, attempt, now))
    draft.runs.append(RunRecord(key=run.key, outcome="Cancelled", gpu_seconds=_gpu_seconds(used)))
    draft.events.append(Event("Normal", "Cancelled", f"run {run.key[:12]} makes way for {other.key[:12]}"))


def _gpu_seconds(used: limits.Usage) -> int:
    return round(used.gpu_seconds)


def _keep(draft: Draft, run: Run, result: TrainingResult) -> None:
    """The run has succeeded: its scores are the job's; the gate decides whether its artifact is."""
    artifact = result.artifact
    assert artifact is not None
    warnings.show(draft.conditions, result.warnings)
    made = ArtifactStatus(
        digest=artifact.digest,
        uri=artifact.uri,
        type=artifact.type,
        bytes=artifact.bytes,
        base=BaseStatus(digest=artifact.base.digest, uri=artifact.base.uri),
        adapter=AdapterFactsStatus.of(artifact.adapter) if artifact.adapter else None,
        run=run.key,
        verdict=Verdict.UNDECIDED if draft.job.spec.gate else None,
    )
    evaluations.keep(draft, run, result.evaluation, result.evaluation_key)
    draft.speed = costs.keep_speed(draft.job, result.speed, draft.cost, draft.observed.settings)
    timings = result.timings[:MAX_TIMINGS]
    draft.timings = [TimingStatus(stage=timing.stage, seconds=timing.seconds) for timing in timings]
    succeeded = RunRecord(
        key=run.key,
        outcome="Succeeded",
        artifact_digest=artifact.digest,
        artifact=made,
        gpu_seconds=_gpu_seconds(draft.used),
    )
    draft.runs = [*_others(draft, run), succeeded]


def _others(draft: Draft, run: Run) -> list[RunRecord]:
    return [record for record in draft.runs if record.key != run.key]
