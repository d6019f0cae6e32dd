"""The loss on the validation rows while training goes on, without leaving a trace in what is trained.

No dropout, no data loader: random state does not change, so the weights become those of a run that never looked.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import SEQUENCE_METHODS, Method
from finetune_contract.training import TrainingPlan, ValidationPlan
from finetune_store.checkpoints import Checkpoints
from finetune_trainer.progress import ProgressBoard
from finetune_trainer.train import course
from finetune_trainer.train.meters import Meter
from finetune_trainer.train.sequences import IGNORED, TrainingData, as_dataset, pieces_of
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)

_EVALUATIONS = 10
"""Evaluations of a run where the user does not say how many."""

_TOKENS_SHARE = 0.1
"""Tokens that may be evaluated per token trained on, where nobody asked for evaluations; a third of that in time."""

_FEWEST = 3
"""Evaluations that can show a loss which rises twice."""


@dataclass(frozen=True)
class ValidationData:
    """Held-out sequences, and how often they are looked at."""

    dataset: Any
    """datasets.Dataset, shaped as the training sequences."""
    interval_steps: int


def prepare_validation(
    plan: TrainingPlan, bench: Workbench, data: TrainingData, total_steps: int
) -> ValidationData | None:
    """The validation rows as sequences; None where there is nothing to look at, or looking would cost too much.

    Raises:
        FineTuneError: DatasetInvalid or InvalidPlan when the best step is asked for and nothing can tell it.
    """
    settings = plan.validation
    if plan.method not in SEQUENCE_METHODS:
        if course.publishes_best(settings):
            raise FineTuneError(
                FailureReason.INVALID_PLAN,
                f"spec.validation: keepBest and earlyStopping are for SFT and CPT; spec.method is {plan.method}",
            )
        return None
    rows = bench.revision.rows("validation") if settings.max_rows else []
    if len(rows) > settings.max_rows:
        rows = random.Random(plan.hyperparameters.seed).sample(rows, settings.max_rows)
    is_text = plan.method is Method.CPT
    pieces = [
        piece
        for row in bench.renderer.tokens(rows)
        for piece in pieces_of(row, data.sequence_length, split_long=is_text)
        if bool((piece.labels != IGNORED).any())
    ]
    if not pieces:
        if course.publishes_best(settings):
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                "spec.validation: keepBest and earlyStopping need validation rows, and the dataset has none; "
                "set spec.split.validation of the Dataset",
            )
        return None
    tokens = sum(len(piece.ids) for piece in pieces)
    interval = _interval(settings, total_steps, tokens, plan.hyperparameters.epochs * data.tokens)
    if interval is None:
        log.info("%d validation tokens are too many to look at beside %d tokens of training", tokens, data.tokens)
        return None
    return ValidationData(as_dataset(pieces, data.sequence_length if data.is_packed else None), interval)


def _interval(settings: ValidationPlan, total_steps: int, tokens: int, trained_tokens: float) -> int | None:
    if settings.interval_steps is not None:
        return settings.interval_steps
    number = _EVALUATIONS
    if not course.publishes_best(settings):
        number = min(number, int(_TOKENS_SHARE * trained_tokens / tokens))
        if number < _FEWEST:
            return None
    return math.ceil(total_steps / number)


class Validation(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Looks at the validation rows every so many steps, and keeps or ends what the plan says."""

    def __init__(
        self,
        plan: ValidationPlan,
        interval_steps: int,
        board: ProgressBoard,
        checkpoints: Checkpoints,
        meter: Meter,
    ) -> None:
        """Take how often to look; what measures the loss comes later, as `measure`."""
        self._plan = plan
        self._interval_steps = interval_steps
        self._board = board
        self._checkpoints = checkpoints
        self._meter = meter
        self.measure: Callable[[], float] | None = None
        """Answers the mean loss per supervised token; every rank must get the same number."""
        self.seconds = 0.0
        """Wall time of all looks."""

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: object
    ) -> None:
        """Protect what an earlier attempt found to be best."""
        self._protect(state)

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """Look if it is time, and decide."""
        if state.global_step % self._interval_steps and state.global_step < state.max_steps:
            return control
        assert self.measure is not None
        began = time.monotonic()
        loss = self.measure()
        if not math.isfinite(loss):
            raise FineTuneError(
                FailureReason.NON_FINITE_LOSS,
                f"step {state.global_step}: the loss on the validation rows is {loss}; nothing of this step was saved",
            )
        state.log_history.append({course.EVAL_LOSS: loss, "step": state.global_step, "epoch": state.epoch})
        self._board.update(eval_loss=loss)
        self._board.warn("validation", self._warnings(state))
        chosen = course.step_to_publish(state.log_history, self._plan)
        self._protect(state)
        if chosen and chosen.step == state.global_step:
            control.should_save = control.should_log = True
        if course.is_over(state.log_history, self._plan.early_stopping):
            log.info("step %d: no better loss since step %s: stopping early", state.global_step, chosen and chosen.step)
            control.should_save = control.should_log = control.should_training_stop = True
        spent = time.monotonic() - began
        self.seconds += spent
        self._meter.leave_out(spent)
        self._board.leave_out(spent)
        log.info("step %d: validation loss %.4f (%.1f s)", state.global_step, loss, spent)
        return control

    def _protect(self, state: TrainerState) -> None:
        chosen = course.step_to_publish(state.log_history, self._plan)
        self._checkpoints.protected = chosen.step if chosen else None

    def _warnings(self, state: TrainerState) -> tuple[Any, ...]:
        warning = course.overfitting(state.log_history)
        return (warning,) if warning else ()


class SequenceLoss:
    """The mean loss per supervised token of a trainer's model on fixed sequences."""

    def __init__(self, trainer: Any, dataset: Any, micro_batch: int) -> None:  # noqa: ANN401 - trl has no types
        """Take the trainer, whose loss, collator and precision are used, and the sequences."""
        self._trainer = trainer
        self._dataset = dataset
        self._micro_batch = micro_batch

    def __call__(self) -> float:
        """Measure; the model is in training mode before and after."""
        model = self._trainer.model
        total, count = 0.0, 0
        model.eval()
        try:
            with torch.no_grad(), self._trainer.compute_loss_context_manager():
                for batch in self._batches():
                    tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
                    if tokens:
                        total += float(self._trainer.compute_loss(model, batch)) * tokens
                        count += tokens
        finally:
            model.train()
        return total / count

    def _batches(self) -> Iterator[dict[str, Any]]:
        device = self._trainer.model.device
        for start in range(0, len(self._dataset), self._micro_batch):
            stop = min(start + self._micro_batch, len(self._dataset))
            batch = self._trainer.data_collator([self._dataset[at] for at in range(start, stop)])
            yield {
                name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
            }
