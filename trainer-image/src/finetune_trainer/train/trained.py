"""What the training stage leaves: its last or best checkpoint, and what the log says of the way there."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import RunWarning
from finetune_store.checkpoints import Checkpoints, step_of
from finetune_trainer.train import course
from finetune_trainer.train.attempt import Attempt
from finetune_trainer.train.meters import Meter
from finetune_trainer.train.sequences import TrainingData

log = logging.getLogger(__name__)

_LOSSES_AVERAGED = 10
"""Logged steps whose mean is the run's training loss: one step's is noise."""


@dataclass(frozen=True)
class Trained:
    """What the training stage leaves."""

    checkpoint: Path
    """The checkpoint that is published, of the best or the last step: model or adapter, and `trainer_state.json`."""
    step: int
    """The last step that was trained."""
    total_steps: int
    best_step: int | None
    """Step of `checkpoint` where the plan asks for the best."""
    best_eval_loss: float | None
    warnings: tuple[RunWarning, ...]
    tokens_per_second: float | None
    mfu: float | None
    resumed_from_step: int | None
    train_loss: float
    data: TrainingData


def trained(
    attempt: Attempt,
    last: Path,
    checkpoints: Checkpoints,
    data: TrainingData,
    meter: Meter,
    total: int,
    resumed_from: int | None,
) -> Trained:
    """What is published of a run whose last checkpoint is `last`, and what its log says."""
    history = log_of(last)
    chosen, published, lost = course.step_to_publish(history, attempt.plan.validation), last, None
    if chosen is not None:
        log.info("the best of %d steps is %d, validation loss %.4f", step_of(last), chosen.step, chosen.loss)
        published, lost = best_that_verifies(history, chosen, checkpoints)
    best = course.best(history)
    warnings = (course.overfitting(history), course.rewards_without_variance(history), lost)
    return Trained(
        checkpoint=published,
        step=step_of(last),
        total_steps=total,
        best_step=step_of(published) if chosen else None,
        best_eval_loss=best.loss if best else None,
        warnings=tuple(warning for warning in warnings if warning),
        tokens_per_second=meter.tokens_per_second,
        mfu=meter.mfu,
        resumed_from_step=resumed_from,
        train_loss=_train_loss(history),
        data=data,
    )


def best_that_verifies(
    history: list[dict[str, Any]], chosen: course.Evaluation, checkpoints: Checkpoints
) -> tuple[Path, RunWarning | None]:
    """The best step's checkpoint; where that is damaged the next best that verifies, else the newest, and a warning.

    Raises:
        FineTuneError: CheckpointCorrupt when none verifies.
    """
    others = sorted(course.evaluations(history), key=lambda each: each.loss)
    for each in (chosen, *others):
        if found := checkpoints.at(each.step):
            return found, None if each.step == chosen.step else course.best_is_lost(chosen, each.step, each.loss)
    newest = checkpoints.newest()
    if newest is None:
        raise FineTuneError(
            FailureReason.CHECKPOINT_CORRUPT,
            f"neither the checkpoint of step {chosen.step}, the best, nor any other verifies",
        )
    step, found = newest
    return found, course.best_is_lost(chosen, step, None)


def log_of(checkpoint: Path) -> list[dict[str, Any]]:
    """What was logged up to a checkpoint, by whichever attempt: one that only resumed knows it too."""
    text = (checkpoint / "trainer_state.json").read_text(encoding="utf-8")
    return list(json.loads(text)["log_history"])


def _train_loss(history: list[dict[str, Any]]) -> float:
    """Mean of the last logged losses."""
    losses = [entry["loss"] for entry in history if "loss" in entry][-_LOSSES_AVERAGED:]
    return float(sum(losses) / len(losses))
