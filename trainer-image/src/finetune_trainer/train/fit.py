"""The training stage: from rows to the checkpoint of the last step."""

import gc
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, set_seed

from finetune_contract.methods import Method
from finetune_contract.training import TrainingPlan
from finetune_store.checkpoints import Checkpoints
from finetune_trainer.train import course
from finetune_trainer.train.adapters import attach, quantization
from finetune_trainer.train.attempt import Attempt
from finetune_trainer.train.attention import SEGMENTED, is_segmentable, register
from finetune_trainer.train.batching import BatchPlan, most_on_cpu, most_on_gpu, plan_batches
from finetune_trainer.train.callbacks import Checkpointing, Guard, Reporting, TokenClock, Tracking
from finetune_trainer.train.group import from_first, sums
from finetune_trainer.train.meters import Meter
from finetune_trainer.train.methods import FAMILIES
from finetune_trainer.train.model import CPU, load_model, refuse_foreign_tokenizer
from finetune_trainer.train.order import GlobalBatches
from finetune_trainer.train.rehearsal import cuts, first_that_fits
from finetune_trainer.train.resume import newest_for_all
from finetune_trainer.train.sequences import TrainingData, build_training_data, with_any_row, with_blank
from finetune_trainer.train.sharded import is_sharded
from finetune_trainer.train.trained import Trained, log_of, trained
from finetune_trainer.train.trainer import PackedTrainer, build_config
from finetune_trainer.train.validation import SequenceLoss, Validation, ValidationData, prepare_validation
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)

SMALL_MODEL = 500_000_000
"""Parameters below which a GPU has memory to spare, so that recomputing activations would only cost time."""


_REINFORCED = (Method.GRPO, Method.RLOO)
"""Methods whose loss says nothing: it may rise while the reward does."""


def fit(attempt: Attempt, bench: Workbench, checkpoints: Checkpoints) -> Trained | None:
    """Train from the newest checkpoint, or not at all when its step is the last; rank 0 has something to publish then.

    Raises:
        FineTuneError: Preempted, NonFiniteLoss, DataTruncated, InvalidPlan, ModelNotFound, TokenizerMismatch.
    """
    plan = attempt.plan
    family = FAMILIES.get(plan.method)
    with attempt.watch.stage("Loading"):
        began = time.monotonic()
        model = _load(plan, bench)
        log.info("model loaded in %.1f s", time.monotonic() - began)
        if family:
            data = family.prepare(plan, bench)
        else:
            packing = plan.hyperparameters.packing and _is_segmented(model)
            data = prepare(plan, bench, bench.revision.rows("train"), packing=packing)
        newest = newest_for_all(attempt.ranks, checkpoints)
        count = family.total_steps if family else None
        total = count(plan, data) if count else total_steps(plan, len(data.dataset))
        validation = prepare_validation(plan, bench, data, total)
        log.info("model and data loaded in %.1f s", time.monotonic() - began)
    resumed_from = newest[0] if newest else None
    attempt.board.update(
        total_steps=total, step=resumed_from or 0, resumed_from_step=resumed_from, checkpoint_step=resumed_from
    )
    meter = Meter.of(model)
    if newest is not None and _is_done(plan, newest, total):
        log.info("%d of %d steps were done before: nothing is left to train", newest[0], total)
        last = newest[1]
    else:
        last = _train(attempt, bench, model, data, validation, meter, total, newest[1] if newest else None, checkpoints)
    del model
    _free_memory()
    if not attempt.ranks.is_first:
        return None  # the last checkpoint is on rank 0's disk, which may not be this one
    return trained(attempt, last, checkpoints, data, meter, total, resumed_from)


def _is_done(plan: TrainingPlan, newest: tuple[int, Path], total: int) -> bool:
    step, checkpoint = newest
    return step >= total or course.is_over(log_of(checkpoint), plan.validation.early_stopping)


def _load(plan: TrainingPlan, bench: Workbench) -> Any:  # noqa: ANN401 - transformers has no types
    """The model to train, with its adapter and the attention that keeps packed documents apart."""
    register()
    # The adapter's first weights are random: the same in every attempt.
    set_seed(plan.hyperparameters.seed)
    family = FAMILIES.get(plan.method)
    if family and family.load:
        return family.load(plan, bench)
    # One that is divided need not fit one GPU: FSDP moves each part there.
    device = CPU if is_sharded(plan) else bench.device
    dtype = bench.device.dtype(trained=plan.adapter is None)
    model = load_model(bench.base, dtype, device, quantization(plan.adapter, bench.device))
    refuse_foreign_tokenizer(model, bench.tokenizer)
    if family is None and is_segmentable(model):
        model.set_attn_implementation(SEGMENTED)
    elif family is None:
        log.info("%s cannot keep packed documents apart: rows are padded, not packed", type(model).__name__)
    return model if plan.adapter is None else attach(model, plan.adapter, bench.start)


def _is_segmented(model: Any) -> bool:  # noqa: ANN401
    return bool(model.config.get_text_config()._attn_implementation == SEGMENTED)  # noqa: SLF001 - no public name


def prepare(plan: TrainingPlan, bench: Workbench, rows: list[dict[str, Any]], *, packing: bool) -> TrainingData:
    """Rows as the sequences that SFT and CPT learn from; what the plan does not allow to be lost is refused."""
    if bench.renderer.is_chat and not bench.renderer.marks_assistant:
        log.info("the chat template does not mark assistant turns: the loss is on each row's last answer only")
    return build_training_data(
        bench.renderer.tokens(rows),
        plan.hyperparameters.model_copy(update={"packing": packing}),
        bench.context,
        plan.truncated_share,
        split_long=plan.method is Method.CPT,
    )


def total_steps(plan: TrainingPlan, sequences: int) -> int:
    """Optimiser steps of the run; the last step of an epoch may see fewer sequences."""
    return math.ceil(plan.hyperparameters.epochs * math.ceil(sequences / plan.hyperparameters.global_batch_size))


def _train(
    attempt: Attempt,
    bench: Workbench,
    model: Any,  # noqa: ANN401
    data: TrainingData,
    validation: ValidationData | None,
    meter: Meter,
    total: int,
    resumed: Path | None,
    checkpoints: Checkpoints,
) -> Path:
    """Run the loop to its end, or to the step in which the pod is told to stop; answers the last step's checkpoint."""
    plan, ranks = attempt.plan, attempt.ranks
    clock = TokenClock(ranks)
    reporting = Reporting(attempt.board, clock, meter)
    recomputes = _recomputes(bench, model)
    estimate = _batches(attempt, bench, model, data, recomputes=recomputes)
    saving = Checkpointing(checkpoints, plan.checkpoints, attempt.stop, attempt.board, ranks)
    looking = (
        Validation(plan.validation, validation.interval_steps, attempt.board, checkpoints, meter)
        if validation is not None
        else None
    )
    settings = plan.hyperparameters
    family = FAMILIES.get(plan.method)

    def build(batches: BatchPlan) -> Any:  # noqa: ANN401 - trl has no types
        attempt.board.update(micro_batch_size=batches.micro)
        config = build_config(
            settings,
            output_dir=str(checkpoints.directory),
            total_steps=total,
            batches=batches,
            device=bench.device,
            packed_attention=_is_segmented(model),
            recomputes=recomputes,
            sharded=is_sharded(plan),
        )
        make_trainer: Callable[..., Any] = partial(family.make_trainer, plan, bench) if family else PackedTrainer
        dataset = data.dataset
        if family is None or family.is_ordered:
            order = GlobalBatches(len(dataset), settings.global_batch_size, batches, ranks, settings.seed)
            make_trainer = partial(make_trainer, order=order, ranks=ranks)
            if ranks.are_several:
                dataset = with_any_row(dataset) if family else with_blank(dataset)
        return make_trainer(
            clock=clock,
            model=model,
            args=config,
            train_dataset=dataset,
            processing_class=bench.tokenizer,
            # The guard and what decides about saving before the one that saves.
            callbacks=[
                Guard(watches_divergence=plan.method not in _REINFORCED),
                reporting,
                *([looking] if looking else []),
                *([Tracking(attempt.tracking, attempt.board)] if attempt.tracking else []),
                saving,
            ],
        )

    # Several ranks would have to agree: they take the estimate.
    plans = [estimate] if ranks.are_several else cuts(plan, estimate, bench.device, resumed)
    trainer, batches = first_that_fits(plans, build, data.dataset)
    log.info("micro batch %d, accumulated %d times", batches.micro, batches.accumulation)
    if looking and validation:
        measure = SequenceLoss(trainer, validation.dataset, batches.micro)
        # All ranks measure the same rows; what follows must not hang on the last bit of a GPU's sum.
        looking.measure = lambda: float(from_first(ranks, measure()))
    trainer.remove_callback(PrinterCallback)
    if ranks.are_several and resumed is None:
        # Each rank drops out other things; a resumed one goes on with the random state that was saved.
        set_seed(settings.seed + ranks.rank)
    attempt.stop.check()
    began = time.monotonic()
    with attempt.stop.deferred():
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        attempt.stop.requested = any(sums(ranks, [attempt.stop.requested]))
    attempt.stop.check()
    first = reporting.first_step_seconds or 0.0
    attempt.watch.add("FirstStep", first)
    looked = looking.seconds if looking else 0.0
    attempt.watch.add("Training", time.monotonic() - began - first - looked)
    if looking:
        attempt.watch.add("Validating", looked)
    return checkpoints.directory / f"checkpoint-{trainer.state.global_step}"


def _recomputes(bench: Workbench, model: Any) -> bool:  # noqa: ANN401
    """Whether activations are computed again in the backward pass, to save memory."""
    return bool(bench.device.is_cuda and model.num_parameters() >= SMALL_MODEL)


def _batches(
    attempt: Attempt,
    bench: Workbench,
    model: Any,  # noqa: ANN401
    data: TrainingData,
    *,
    recomputes: bool,
) -> BatchPlan:
    config = model.config.get_text_config()
    if bench.device.is_cuda:
        most = most_on_gpu(
            data.sequence_length,
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            free_bytes=torch.cuda.mem_get_info()[0],
            recomputes=recomputes,
        )
    else:
        most = most_on_cpu(data.sequence_length)
    # GPUs may differ in what is free: all ranks take what rank 0 takes.
    return from_first(attempt.ranks, plan_batches(attempt.plan.hyperparameters, attempt.ranks.count, most))


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
