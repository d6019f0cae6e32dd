"""How far a training is, as its pod says it and people read it."""

from datetime import datetime, timedelta

from finetune_contract.results import Progress, TrainingResult
from finetune_operator.api.figures import FigureStatus
from finetune_operator.api.finetunejobstatus import ProgressStatus, Run
from finetune_operator.api.tracking import TrackedRunStatus
from finetune_operator.reconcile import warnings
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.endings import (
    Numbered,
)


def final_progress(result: TrainingResult) -> ProgressStatus:
    """How far a run that has succeeded came."""
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


def shown_progress(said: Progress) -> ProgressStatus:
    """What a pod says, rounded to what people read."""
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


def tracked_runs(said: Progress | TrainingResult) -> list[TrackedRunStatus]:
    """The run as experiment trackers know it; empty where there are none, or none has answered yet."""
    return [TrackedRunStatus(tracker=each.tracker, run=each.run, url=each.url) for each in said.tracking]


def tell(draft: Draft, current: Numbered, run: Run, said: Progress | None) -> None:
    """A pod runs; show what it said last, if that was about this run and attempt."""
    draft.conditions.set("Running", True, "Training", f"attempt {current.number}")
    draft.conditions.waiting("Training", f"attempt {current.number} is running")
    if said is None or said.run_key != run.key or said.attempt != current.number:
        return
    warnings.show(draft.conditions, said.warnings)
    draft.tracking = tracked_runs(said) or draft.tracking
    shown = shown_progress(said)
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
