"""What is written down of a BatchInference's attempts: how one ended, what follows from it, what was answered."""

from pydantic import ValidationError

from finetune_contract.batching import BatchResult
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.api.base import JobFailure
from finetune_operator.api.batchinferencestatus import (
    BatchAttempt,
    BatchOutput,
    BatchProgressStatus,
    BatchRun,
    ErrorCountStatus,
)
from finetune_operator.manifests.naming import LABEL_QUEUE, Manifest
from finetune_operator.reconcile import limits
from finetune_operator.reconcile.batchdraft import BatchDraft
from finetune_operator.reconcile.endings import (
    Ending,
    Numbered,
    finished_at,
    generation_of,
    label_of,
    name_of,
)
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.queueing import ADMITTED
from finetune_operator.reconcile.record import MAX_STALLED_DISRUPTIONS, MESSAGE_LIMIT


def latch(draft: BatchDraft, attempt: Numbered, ending: Ending) -> None:
    """Write down how an attempt ended, and what follows from it."""
    said = _result_of(ending)
    result = said if isinstance(said, BatchResult) else None
    failure = said if isinstance(said, Failure) else said.failure
    used = limits.usage_of(attempt.job, draft.observed.of("Pod"), draft.now)
    if failure and ending.failure and ending.failure.reason is FailureReason.DEADLINE_EXCEEDED:
        # The kubelet stopped the pod at a limit while no operator was there; the pod only knows that it was stopped.
        left = limits.left(draft.batch.spec.limits, draft.used.plus(used), limits.accelerators_of(attempt.job))
        failure = left.failure if left else ending.failure
    run = run_of(draft)
    before = max((each.rows for each in draft.attempts if each.run == run.key[:12]), default=0)
    rows = result.counts.rows if result else kept_rows(draft)
    entry = BatchAttempt(
        number=attempt.number,
        run=run.key[:12],
        reason=failure.reason.value if failure else "Succeeded",
        message=failure.message[:MESSAGE_LIMIT] if failure else "",
        node=ending.node,
        finished_at=finished_at(attempt.job),
        rows=rows,
    )
    draft.note(entry, used)
    if draft.run and draft.run.attempt < attempt.number:
        draft.run = draft.run.model_copy(update={"attempt": attempt.number})
    if label_of(attempt.job, LABEL_QUEUE):
        draft.conditions.set(ADMITTED, True, "Admitted", f"by queue {label_of(attempt.job, LABEL_QUEUE)}")
    at_rest(draft)
    if failure is None:
        assert result is not None
        _keep(draft, result, attempt.job)
        return
    if result:
        draft.progress = _progress(result)
    counts = policy_of(failure.reason).counts
    draft.retries_used += counts
    draft.stalled_disruptions = 0 if rows > before else draft.stalled_disruptions + (not counts)
    draft.events.append(Event("Warning", failure.reason.value, f"attempt {attempt.number}: {failure.message}"[:1000]))
    if final := _verdict(draft, failure):
        draft.failure = JobFailure(
            job=name_of(attempt.job), reason=final.reason.value, message=final.message[:MESSAGE_LIMIT]
        )
        # An edit that came after this attempt was started has not been tried yet.
        generation = generation_of(attempt.job, draft.batch.metadata.generation)
        draft.run = run_of(draft).model_copy(update={"generation": generation})


def _result_of(ending: Ending) -> BatchResult | Failure:
    """The pod's own word where it left one, else Kubernetes'."""
    try:
        return BatchResult.from_message(ending.message)
    except ValidationError as error:
        message = f"the pod ended with exit code 0 but left no valid result: {error.errors()[0]['msg']}"
        return ending.failure or Failure(reason=FailureReason.CONTRACT_VIOLATION, message=message)


def _verdict(draft: BatchDraft, failure: Failure) -> Failure | None:
    """The failure that ends the run; None if another attempt is to be made."""
    policy, limit = policy_of(failure.reason), draft.batch.spec.retries.limit
    if not policy.retried:
        return failure
    if policy.counts and draft.retries_used > limit:
        message = f"{failure.message} (spec.retries.limit: {limit} used up)"
        return Failure(reason=failure.reason, message=message[:MESSAGE_LIMIT])
    if draft.stalled_disruptions >= MAX_STALLED_DISRUPTIONS:
        message = f"{draft.stalled_disruptions} disruptions in a row, the last: {failure.message}"
        return Failure(reason=FailureReason.NO_PROGRESS, message=message)
    return None


def _keep(draft: BatchDraft, result: BatchResult, job: Manifest) -> None:
    """Take over the answers."""
    assert result.output is not None
    counts = result.counts
    draft.output = BatchOutput(
        digest=result.output.digest,
        uri=result.output.uri,
        run=run_of(draft).key,
        finished_at=finished_at(job) or draft.now.replace(microsecond=0),
        input_digest=result.input_digest,
        rows=result.total_rows,
        succeeded=counts.succeeded,
        failed=counts.failed,
        resumed_rows=result.resumed_rows,
        errors=[ErrorCountStatus(code=each.code, rows=each.rows) for each in result.errors],
        prompt_tokens=counts.prompt_tokens,
        generated_tokens=counts.generated_tokens,
        seconds=round(counts.seconds, 1),
        tokens_per_second=round(counts.generated_tokens / counts.seconds, 1) if counts.seconds else None,
        device=result.device,
        reused=result.reused,
    )
    draft.failure = None
    draft.progress = _progress(result)
    words = f"{counts.succeeded} of {result.total_rows} rows were answered: {result.output.uri}"
    draft.events.append(Event("Normal", "Reused" if result.reused else "Succeeded", words[:1000]))


def _progress(result: BatchResult) -> BatchProgressStatus:
    """How far a pod came that has ended."""
    total, counts = result.total_rows, result.counts
    return BatchProgressStatus(
        rows=counts.rows,
        kept_rows=counts.rows,
        total_rows=total,
        failed=counts.failed,
        percent=min(100, 100 * counts.rows // total) if total else 0,
    )


def kept_rows(draft: BatchDraft) -> int:
    """What a pod that left no word had brought into the store, as far as it said."""
    return draft.progress.kept_rows if draft.progress else 0


def at_rest(draft: BatchDraft) -> None:
    """How far it came still stands; what it was doing is over."""
    if draft.progress:
        update = {"phase": None, "tokens_per_second": None, "estimated_completion_time": None}
        draft.progress = draft.progress.model_copy(update=update)


def run_of(draft: BatchDraft) -> BatchRun:
    """The present run; attempts are made for no other."""
    assert draft.run is not None
    return draft.run
