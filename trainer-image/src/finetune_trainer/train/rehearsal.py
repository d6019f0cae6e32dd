"""The largest micro batch that fits, found by trying it before the first step; nothing of the trial is left."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import SEQUENCE_METHODS
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.batching import BatchPlan
from finetune_trainer.train.memory import evidence, out_of_memory
from finetune_trainer.train.model import Device

log = logging.getLogger(__name__)

MARGIN = 0.92
"""Share of the GPU's memory that a trial may use: fragmentation grows while a run goes on."""

ROOM = 4
"""How many times the estimate is tried first: it errs on the small side."""

_OPTIMISER_STATES = 2
"""AdamW keeps two numbers per trained weight, from its first step on."""


def cuts(plan: TrainingPlan, estimate: BatchPlan, device: Device, resumed: Path | None) -> list[BatchPlan]:
    """Ways to cut the global batch that are to be tried; one alone is taken untried.

    Nothing is tried on CPU, where caches decide and not memory, and where the user or the method has decided. A run
    that resumes begins with the size that it had: with another one, dropout would draw other numbers.
    """
    is_settled = plan.hyperparameters.micro_batch_size is not None or plan.method not in SEQUENCE_METHODS
    if not device.is_cuda or is_settled:
        return [estimate]
    found = candidates(estimate, ROOM)
    if resumed is not None:
        state = json.loads((resumed / "trainer_state.json").read_text(encoding="utf-8"))
        size = state.get("train_batch_size") or estimate.micro
        found = [cut for cut in found if cut.micro <= size] or [estimate]
    return found


def candidates(estimate: BatchPlan, room: int) -> list[BatchPlan]:
    """Ways to cut the same global batch, largest micro batch first: from `room` times the estimate down to one."""
    per_rank = estimate.micro * estimate.accumulation
    sizes = [size for size in range(min(per_rank, room * estimate.micro), 0, -1) if per_rank % size == 0]
    return [BatchPlan(size, per_rank // size) for size in sizes]


def first_that_fits(
    plans: Sequence[BatchPlan],
    build: Callable[[BatchPlan], Any],
    sequences: Any,  # noqa: ANN401 - trl has no types
) -> tuple[Any, BatchPlan]:
    """A trainer with the first of `plans` that survives a forward and a backward pass on the longest sequences.

    Args:
        plans: In the order in which they are tried.
        build: Makes a trainer; called once per trial, always for the same model.
        sequences: datasets.Dataset with `input_ids`.

    Raises:
        FineTuneError: GpuOutOfMemory or HostOutOfMemory when none fits.
    """
    if len(plans) == 1:
        return build(plans[0]), plans[0]
    lengths = [len(ids) for ids in sequences["input_ids"]]
    longest = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    for plan in plans:
        trainer = build(plan)
        failure = _try(trainer, [sequences[at] for at in longest[: plan.micro]])
        if failure is None:
            return trainer, plan
        reason, message = failure
        log.info("micro batch %d does not fit: %s", plan.micro, message)
        _forget(trainer)
    raise FineTuneError(
        reason,
        f"not even one sequence of {max(lengths)} tokens fits: {message}; spec.hyperparameters.maxLength or a smaller "
        "adapter would help",
    )


def _try(trainer: Any, rows: list[Any]) -> tuple[FailureReason, str] | None:  # noqa: ANN401
    model, device = trainer.model, trainer.model.device
    state = torch.get_rng_state()
    gpu_state = torch.cuda.get_rng_state() if device.type == "cuda" else None
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(MARGIN)
    model.train()
    ballast: list[torch.Tensor] = []
    try:
        batch = trainer.data_collator(rows)
        batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        ballast += [torch.empty_like(weight) for weight in trained for _ in range(_OPTIMISER_STATES)]
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, batch)
        loss.backward()
    except Exception as error:
        reason = out_of_memory(error)
        if reason is None:
            raise
        return reason, evidence()
    finally:
        ballast.clear()
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state)
            torch.cuda.set_per_process_memory_fraction(1.0)
        trainer._metrics["train"].clear()  # noqa: SLF001 - what TRL logs of the pass
    return None


def _forget(trainer: Any) -> None:  # noqa: ANN401
    """Take TRL's patched forward from the model, so that the next trainer does not patch it twice."""
    model = trainer.model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.__dict__.pop("forward", None)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
