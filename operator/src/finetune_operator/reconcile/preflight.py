"""Before the first attempt: a CPU Job says what the training would take, and what would make it fail.

A preflight that cannot be done never keeps a job from training: only what is known to fail is refused. What it found
stays in status and holds until what was asked changes: another input, field, resource or kind of GPU.
"""

import hashlib
from datetime import datetime
from typing import Any

from finetune_contract.failure import FailureReason, policy_of, reason_of
from finetune_contract.preflight import Fit, PreflightPlan, PreflightResult
from finetune_operator.api.figures import PreflightStatus, PreflightWay
from finetune_operator.api.finetunejob import FineTuneJob, Preflight
from finetune_operator.api.finetunejobstatus import Run
from finetune_operator.manifests import devices, preflighting
from finetune_operator.reconcile import oneshot
from finetune_operator.reconcile.draft import PREFLIGHT_PASSED, Draft
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import seconds_until, with_plan

CERTAIN = frozenset(
    {
        FailureReason.INVALID_PLAN,
        FailureReason.DATASET_INVALID,
        FailureReason.DATA_TRUNCATED,
        FailureReason.MODEL_NOT_FOUND,
        FailureReason.TOKENIZER_MISMATCH,
    }
)
"""Failures that training would end with before its first step, whatever it runs on."""

GIB = 2**30


def passed(draft: Draft, job: FineTuneJob, run: Run, now: datetime) -> bool:
    """Whether an attempt may be made; if not, the conditions say why."""
    mode = mode_of(job, draft)
    if mode is Preflight.DISABLED:
        draft.preflight = None
        draft.conditions.remove(PREFLIGHT_PASSED)
        return True
    plan = preflighting.plan(job, run, draft.observed.settings)
    key = hashlib.sha256(f"{run.rerun or ''}/{plan.to_json()}".encode()).hexdigest()[:32]
    if not _is_known(draft.preflight, key, job.metadata.generation):
        _find_out(draft, job, plan, key, now)
    found = draft.preflight
    return found is not None and found.verdict is not None and _judge(draft, found, mode)


def _is_known(found: PreflightStatus | None, key: str, generation: int) -> bool:
    if found is None or found.key != key or found.verdict is None:
        return False
    return found.failure is None or found.generation == generation


def mode_of(job: FineTuneJob, draft: Draft) -> Preflight:
    """What the spec says; where it says nothing, a preflight is made for GPUs whose memory is known."""
    if job.spec.preflight is not None:
        return job.spec.preflight
    return Preflight.ENFORCE if devices.device_of(job, draft.observed.settings) else Preflight.DISABLED


def _find_out(draft: Draft, job: FineTuneJob, plan: PreflightPlan, key: str, now: datetime) -> None:
    before = job.status.preflight
    known = before.failure if before and before.key == key else None
    asked = PreflightStatus(key=key, generation=job.metadata.generation, failure=known)
    draft.preflight = asked
    state = oneshot.state_of(
        draft.observed,
        preflighting.ROLE,
        key,
        parse=PreflightResult.model_validate_json,
        failure_in=lambda result: result.failure,
        latched=known,
        generation=job.metadata.generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            draft.preflight = asked.model_copy(update={"failure": None, **_findings(plan, result)})
        case oneshot.GivenUp(failure):
            draft.preflight = asked.model_copy(update={"verdict": Fit.UNKNOWN, "failure": failure})
            draft.events.append(Event("Warning", failure.reason, f"preflight: {failure.message}"))
        case oneshot.Working() as working:
            draft.preflight = asked.model_copy(update={"failure": working.failure})
            draft.wake(seconds_until([working.until], now))
            _waits(draft, *working.condition("Preflight", "finding out what the training takes"))
        case oneshot.Outdated(outdated):
            draft.delete += with_plan(draft.observed, outdated)
            _waits(draft, "Preflight", "starting again as the edited spec says")
        case oneshot.Wanted() as wanted:
            draft.preflight = asked.model_copy(update={"failure": wanted.failure})
            _waits(draft, "Preflight", "finding out what the training takes")
            draft.wake(oneshot.wait_for(wanted, now))
            if oneshot.is_due(wanted, now):
                draft.make(preflighting.build(job, plan, key, wanted.number, draft.observed.settings))


def _findings(plan: PreflightPlan, result: PreflightResult) -> dict[str, Any]:
    hours = None if result.seconds is None else result.seconds / 3600
    ranks = plan.training.parallelism.ranks
    return {
        "verdict": result.verdict,
        "device": plan.device.name if plan.device else None,
        "device_memory_bytes": plan.device.memory_bytes if plan.device else None,
        "predicted_peak_bytes": result.predicted_peak_bytes,
        "micro_batch_size": result.micro_batch_size,
        "total_steps": result.total_steps,
        "tokens": result.tokens,
        "estimated_hours": None if hours is None else round(hours, 3),
        "estimated_gpu_hours": None if hours is None else round(hours * ranks, 3),
        "ways": [PreflightWay(change=way.change, predicted_peak_bytes=way.predicted_peak_bytes) for way in result.ways],
    }


def _judge(draft: Draft, found: PreflightStatus, mode: Preflight) -> bool:
    """Whether what was found lets the job go on."""
    refused = _refusal(found)
    if refused is None:
        draft.conditions.set(PREFLIGHT_PASSED, _holds(found), *_passed(found))
        return True
    reason, message = refused
    draft.conditions.set(PREFLIGHT_PASSED, False, reason, message)
    before = draft.job.status.preflight
    is_new = before is None or before.key != found.key or before.verdict is None
    if mode is Preflight.WARN:
        if is_new:
            draft.events.append(Event("Warning", reason, f"preflight: {message}"[:1000]))
        return True
    draft.conditions.set("Running", False, reason)
    draft.conditions.stalled(reason, f"{message.rstrip('.')}. {policy_of(reason_of(reason)).remedy}")
    if is_new and found.failure is None:
        draft.events.append(Event("Warning", reason, message[:1000]))
    return False


def _refusal(found: PreflightStatus) -> tuple[str, str] | None:
    """Reason and message of what is known to fail."""
    if found.failure and reason_of(found.failure.reason) in CERTAIN:
        return found.failure.reason, found.failure.message
    if found.verdict is Fit.DOES_NOT_FIT:
        return FailureReason.INSUFFICIENT_GPU_MEMORY.value, _too_large(found)
    return None


def _too_large(found: PreflightStatus) -> str:
    peak, memory = _gib(found.predicted_peak_bytes), _gib(found.device_memory_bytes)
    ways = "; ".join(f"{way.change} ({_gib(way.predicted_peak_bytes)})" for way in found.ways)
    helps = f"It would fit with one of: {ways}" if ways else "No single change of the spec would make it fit"
    return f"spec.resources: training would need {peak} of a {found.device}'s {memory}. {helps}"


def _holds(found: PreflightStatus) -> bool | None:
    return True if found.verdict is Fit.FITS else None


def _passed(found: PreflightStatus) -> tuple[str, str]:
    if found.failure:
        return "NotDone", f"{found.failure.reason}: {found.failure.message}; training is not held up by that"
    told = f"{found.total_steps} steps, {found.tokens} tokens per epoch"
    if found.estimated_gpu_hours is not None:
        told += f", about {found.estimated_gpu_hours:.3g} GPU-hours"
    if found.predicted_peak_bytes is None:
        return "NotPredicted", f"{told}; the memory that this method takes is not predicted"
    peak = _gib(found.predicted_peak_bytes)
    if found.device_memory_bytes is None:
        return "MemoryNotKnown", f"predicted peak {peak}; {told}"
    return "Fits", f"predicted peak {peak} of a {found.device}'s {_gib(found.device_memory_bytes)}; {told}"


def _gib(count: int | None) -> str:
    return f"{(count or 0) / GIB:.1f} GiB"


def _waits(draft: Draft, reason: str, message: str) -> None:
    draft.conditions.set(PREFLIGHT_PASSED, None, reason, message)
    draft.conditions.waiting(reason, message)
