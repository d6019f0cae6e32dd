"""What happens between optimiser steps: progress, checkpoints, stopping, and the guard against non-finite numbers.

Everything happens at the end of a step, where weights, optimiser, scheduler and random state agree: only then is a
resumed run equal to the uninterrupted one, bit by bit (transformers' `enable_jit_checkpoint` saves within a step).
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import CheckpointPlan
from finetune_store.checkpoints import Checkpoints
from finetune_trainer.progress import ProgressBoard
from finetune_trainer.stop import Stop
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.tracking.words import metrics_of
from finetune_trainer.train.course import EVAL_LOSS
from finetune_trainer.train.divergence import LossCurve
from finetune_trainer.train.group import sums, together
from finetune_trainer.train.memory import peak_memory
from finetune_trainer.train.meters import Meter
from finetune_trainer.train.ranks import ALONE, Ranks

log = logging.getLogger(__name__)

_LINE_EVERY_SECONDS = 5.0
"""A log line at most this often; `/progress` knows every step."""


class Checkpointing(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Saves at the end of a step: every interval, when the pod is told to stop, and after the last step."""

    def __init__(
        self, checkpoints: Checkpoints, plan: CheckpointPlan, stop: Stop, board: ProgressBoard, ranks: Ranks = ALONE
    ) -> None:
        """Take where to save, and how often."""
        self._ranks = ranks
        self._checkpoints = checkpoints
        self._interval_seconds = plan.interval_minutes * 60
        self._interval_steps = plan.interval_steps
        self._stop = stop
        self._saved_at = time.monotonic()
        self._board = board
        # Of a store in S3 a checkpoint counts when it is there, which is later than when it is sealed.
        checkpoints.on_stored = lambda step: board.update(checkpoint_step=step)

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Count the interval from the first step on."""
        self._saved_at = time.monotonic()

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """Decide whether to save, and whether to go on: all ranks alike, by rank 0's clock and anybody's signal."""
        is_due = self._ranks.is_first and time.monotonic() - self._saved_at >= self._interval_seconds
        # A signal that comes from here on is for the next step: the others do not know of it.
        due, stopped = sums(self._ranks, [is_due, self._stop.requested])
        is_step = self._interval_steps is not None and state.global_step % self._interval_steps == 0
        if due or stopped or is_step or state.global_step >= state.max_steps:
            control.should_save = True
            # Logged first, so that the guard sees the step before it is saved.
            control.should_log = True
        if stopped:
            self._stop.requested = True
            control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        """Make the checkpoint count."""
        if self._ranks.is_first:
            self._checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
        together(self._ranks)  # saved means saved for all: nobody leaves while rank 0 seals
        if not self._ranks.is_first:
            self._board.update(checkpoint_step=state.global_step)
        self._saved_at = time.monotonic()
        log.info("step %d: checkpoint saved", state.global_step)


class Guard(TrainerCallback):  # type: ignore[misc]
    """Stops at the first loss or gradient that is no number, and when the loss has left for good."""

    def __init__(self, *, watches_divergence: bool = True) -> None:
        """Say whether the loss must not rise: that of reinforcement learning may."""
        self._watches_divergence = watches_divergence
        self._curve = LossCurve()

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: object
    ) -> None:
        """Go on where an earlier attempt was."""
        self._curve = LossCurve(entry["loss"] for entry in state.log_history if "loss" in entry)

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: object
    ) -> None:
        """Check one log entry.

        Raises:
            FineTuneError: NonFiniteLoss, LossDiverged.
        """
        for name, value in (("loss", logs.get("loss")), ("gradient norm", logs.get("grad_norm"))):
            if value is not None and not math.isfinite(value):
                raise FineTuneError(
                    FailureReason.NON_FINITE_LOSS,
                    f"step {state.global_step}: the {name} is {value}; nothing of this step was saved",
                )
        if self._watches_divergence and "loss" in logs and (found := self._curve.add(logs["loss"])):
            raise FineTuneError(FailureReason.LOSS_DIVERGED, f"step {state.global_step}: {found}")


class Reporting(TrainerCallback):  # type: ignore[misc]
    """Keeps the progress board, and writes a line for people now and then."""

    def __init__(self, board: ProgressBoard, clock: "TokenClock", meter: Meter) -> None:
        """Take the board, who counts the tokens, and who measures."""
        self._board = board
        self._meter = meter
        self._clock = clock
        self._began = 0.0
        self._line_at = 0.0
        self.first_step_seconds: float | None = None
        self.passes: float = 1.0
        """Epochs that are one of the trainer's."""

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: object
    ) -> None:
        """Start the clocks."""
        self._began = time.monotonic()
        self._board.update(total_steps=state.max_steps, step=state.global_step)
        self._board.training_begins()

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: object) -> None:
        """Count the step."""
        if self.first_step_seconds is None:
            self.first_step_seconds = time.monotonic() - self._began
        tokens = self._clock.take()
        self._meter.step(tokens)
        self._board.step_ends(state.global_step, self.passes * (state.epoch or 0.0), tokens)

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: object
    ) -> None:
        """Take over loss and learning rate."""
        if "loss" not in logs:
            return
        self._board.update(
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            grad_norm=logs.get("grad_norm"),
            figures={name: logs[name] for name in FIGURES if math.isfinite(logs.get(name, math.nan))},
            mfu=self._meter.mfu,
            peak_memory_bytes=peak_memory(),
        )
        now = time.monotonic()
        if now - self._line_at >= _LINE_EVERY_SECONDS or state.global_step >= state.max_steps:
            self._line_at = now
            seen = self._board.snapshot()
            log.info(
                "step %d/%d  epoch %.2f  loss %.4f  %.0f tokens/s",
                seen.step, seen.total_steps, seen.epoch, logs["loss"], seen.tokens_per_second or 0.0,
            )  # fmt: skip


class Tracking(TrainerCallback):  # type: ignore[misc]
    """Passes on what was logged to experiment trackers; comes after `Reporting`, whose board it reads."""

    def __init__(self, reporter: Reporter, board: ProgressBoard) -> None:
        """Take whom to tell, and what the step was like."""
        self._reporter, self._board = reporter, board
        self._known = 0

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: object
    ) -> None:
        """An earlier attempt has told what it logged."""
        self._known = len(state.log_history)

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: object
    ) -> None:
        """Pass on a step, and the looks at validation rows since the last one."""
        for entry in state.log_history[self._known :]:
            if EVAL_LOSS in entry:
                self._reporter.log(entry["step"], {"eval/loss": entry[EVAL_LOSS]})
        self._known = len(state.log_history)
        if "loss" in logs:
            self._reporter.log(state.global_step, metrics_of(self._board.snapshot()))


FIGURES = (
    "rewards/margins", "rewards/accuracies", "margin", "accuracy", "reward", "reward_std", "frac_reward_zero_std", "kl",
    "completions/mean_length", "completions/clipped_ratio",
)  # fmt: skip
"""What TRL's trainers log beside the loss that tells whether a method works; no method has more than eight of them."""


class TokenClock:
    """Counts the tokens that were computed since it was last asked."""

    def __init__(self, ranks: Ranks = ALONE) -> None:
        """Nothing counted yet."""
        self._ranks = ranks
        self._tokens = 0

    def add(self, tokens: int) -> None:
        """Count some tokens."""
        self._tokens += tokens

    def take(self) -> int:
        """The tokens of all ranks since the last call; all of them ask at the same time."""
        tokens, self._tokens = self._tokens, 0
        return int(sums(self._ranks, [tokens])[0])
