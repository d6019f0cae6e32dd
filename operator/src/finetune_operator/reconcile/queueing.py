"""Jobs in a Kueue queue: what they wait for, and what becomes of an attempt that loses its quota to others.

Kueue holds a Job back by `spec.suspend`, which we set when we create it and never touch again. It preempts by
suspending the Job: the pods are deleted (SIGTERM, the trainer saves a checkpoint), the Job stays and has new pods once
it is admitted again. So an attempt may have several pods one after the other, and none of them ends it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from finetune_contract.results import TrainingResult
from finetune_operator.api.finetunejobstatus import Attempt
from finetune_operator.api.queueing import QueueStatus
from finetune_operator.manifests.naming import ANNOTATION_CONTENT, LABEL_QUEUE, Manifest
from finetune_operator.reconcile.admission import Admission, patience_ends, waits_for
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.endings import (
    finished_at,
    is_suspended,
    label_of,
    pods_of,
    seconds_of,
    terminated_of,
)
from finetune_operator.reconcile.limits import Usage, of_pods
from finetune_operator.reconcile.limits import usage_of as usage_of_pods
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import seconds_until

ADMITTED = "Admitted"

LABEL_RANK = "batch.kubernetes.io/job-completion-index"

ORDINARY = {"Queued", "Pending", "QuotaReserved"}
"""Reasons that only say that it is not yet one's turn."""


def follow(draft: Draft, number: int, job: Manifest, now: datetime) -> bool:
    """Tell where the attempt's Job is in its queue; True while it waits there."""
    queue, admission = label_of(job, LABEL_QUEUE), draft.observed.admissions.get(job["metadata"]["uid"])
    trouble = waits_for(job, admission, now)
    if not queue and trouble is None:
        leave(draft)
        return False
    draft.queue = _standing(draft, number, job, admission if trouble else None) if queue else None
    if trouble is None:
        draft.conditions.set(ADMITTED, True, "Admitted", f"by queue {queue}")
        return False
    draft.wake(seconds_until([patience_ends(job, now)], now))
    draft.conditions.set(ADMITTED, False, trouble.reason, trouble.message)
    reason = "Queued" if trouble.reason in ORDINARY else trouble.reason
    draft.conditions.set("Running", False, reason, f"attempt {number}")
    draft.conditions.waiting(reason, f"attempt {number}: {trouble.message}")
    if draft.progress:
        draft.progress = draft.progress.at_rest()
    return True


def close(draft: Draft, attempt: Attempt, job: Manifest) -> Attempt:
    """The attempt is over: how often it was preempted is part of it, and its place in the queue is gone."""
    record, queue = draft.queue, label_of(job, LABEL_QUEUE)
    leave(draft)
    if queue and finished_at(job):
        draft.conditions.set(ADMITTED, True, "Admitted", f"by queue {queue}")
    if record is None or record.attempt != attempt.number or not record.preemptions:
        return attempt
    return attempt.model_copy(update={"preemptions": record.preemptions})


def leave(draft: Draft) -> None:
    """Nothing of the job is in a queue."""
    draft.queue = None
    draft.conditions.remove(ADMITTED)


def usage_of(draft: Draft, number: int, job: Manifest, now: datetime) -> Usage:
    """What the attempt has used: what is written down of pods that were stopped, and what is seen of the others.

    Stopped pods are known only until the operator is started anew.
    """
    pods, record = draft.observed.of("Pod"), draft.queue
    if record is None or record.attempt != number or record.preempted_at is None:
        return usage_of_pods(job, pods, now)
    newer = [pod for pod in pods if not _is_stopped_by(pod, record.preempted_at)]
    return usage_of_pods(job, newer, now).plus(of_pods(job, record.seconds))


def _is_stopped_by(pod: Manifest, when: datetime) -> bool:
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return bool(pod["metadata"].get("deletionTimestamp")) and created <= when


def best_checkpoint(draft: Draft) -> int:
    """Step of the newest checkpoint that was left by pods that are done."""
    steps = [attempt.checkpoint_step or 0 for attempt in draft.attempts]
    return max([*steps, (draft.queue and draft.queue.checkpoint_step) or 0])


def is_as_wanted(job: Manifest, wanted: tuple[Manifest, ...]) -> bool:
    """Whether a Job that does not run yet is the one that the present spec would make: then its place is kept."""
    built = wanted[-1]["metadata"]["annotations"].get(ANNOTATION_CONTENT)
    return built is not None and (job["metadata"].get("annotations") or {}).get(ANNOTATION_CONTENT) == built


def _standing(draft: Draft, number: int, job: Manifest, admission: Admission | None) -> QueueStatus:
    """The attempt's record in the queue, with its present place."""
    queue, told = label_of(job, LABEL_QUEUE), admission or Admission()
    known = draft.queue if draft.queue and draft.queue.attempt == number else QueueStatus(name=queue, attempt=number)
    place = {"name": queue, "position": told.position, "waiting": told.waiting}
    return _with_stops(draft, known.model_copy(update=place), job)


def _with_stops(draft: Draft, record: QueueStatus, job: Manifest) -> QueueStatus:
    """Count the pods that Kueue stopped since the last pass. The first rank speaks for all."""
    own = [pod for pod in pods_of(job, draft.observed.of("Pod")) if label_of(pod, LABEL_RANK) in ("", "0")]
    for pod in own:
        terminated = terminated_of(pod)
        # A pod that somebody deletes ends the Job; only after a suspension does the Job go on.
        is_past = pod["metadata"].get("deletionTimestamp") and (is_suspended(job) or pod is not own[-1])
        if finished_at(job) or not is_past or not terminated or not terminated.get("finishedAt"):
            continue
        stopped = datetime.fromisoformat(terminated["finishedAt"])
        if record.preempted_at is None or stopped > record.preempted_at:
            ranks = int((job.get("spec") or {}).get("parallelism") or 1)
            record = draft.queue = _with_stop(draft, record, terminated, stopped, ranks)
    return record


def _with_stop(
    draft: Draft, record: QueueStatus, terminated: Mapping[str, Any], stopped: datetime, ranks: int
) -> QueueStatus:
    checkpoint = _checkpoint_of(terminated)
    if checkpoint is None and draft.progress:
        checkpoint = draft.progress.checkpoint_step
    advanced = (checkpoint or 0) > max(best_checkpoint(draft), record.checkpoint_step or 0)
    draft.stalled_disruptions = 0 if advanced else draft.stalled_disruptions + 1
    since = f"it resumes from step {checkpoint}" if checkpoint else "it begins anew: there was no checkpoint yet"
    draft.events.append(Event("Normal", "Preempted", f"attempt {record.attempt} lost its quota and waits; {since}"))
    return record.model_copy(
        update={
            "preemptions": record.preemptions + 1,
            "preempted_at": stopped,
            "seconds": record.seconds + seconds_of(terminated) * ranks,
            "checkpoint_step": checkpoint if advanced else record.checkpoint_step,
        }
    )


def _checkpoint_of(terminated: Mapping[str, Any]) -> int | None:
    try:
        return TrainingResult.from_message(str(terminated.get("message") or "")).checkpoint_step
    except ValidationError:
        return None
