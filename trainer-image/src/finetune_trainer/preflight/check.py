"""The checks of a preflight: the data as training reads it, the model's shape, the memory, the time."""

import logging
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import Method
from finetune_contract.preflight import Fit, PreflightPlan, PreflightResult
from finetune_contract.training import AdapterVariant, LoraPlan, TrainingPlan
from finetune_store.opening import open_store
from finetune_store.store import Store
from finetune_trainer.preflight.methods import KINDS
from finetune_trainer.preflight.needs import Need, Needs, Rows
from finetune_trainer.train.adapters import ADAPTER_WEIGHTS, attach, refuse_another_base, refuse_another_kind
from finetune_trainer.train.attention import is_segmentable
from finetune_trainer.train.fit import prepare, total_steps
from finetune_trainer.train.methods import FAMILIES
from finetune_trainer.train.model import CPU, context_of, load_tokenizer, refuse_foreign_tokenizer
from finetune_trainer.train.rehearsal import MARGIN
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.rows import open_revision
from finetune_trainer.train.sequences import TrainingData
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)

SAMPLE = 20_000
"""Rows that are looked at, at most: tokenised in some seconds."""

_CERTAIN = 2.0
"""How many times the allowed share of tokens a sample must lose before the run is refused by it."""


@dataclass(frozen=True)
class _Data:
    """The rows as sequences, of a sample where there are very many."""

    training: TrainingData
    share: float
    """Of all rows, those that were looked at."""
    packing: bool


def check(plan: PreflightPlan, root: Path, sample: int = SAMPLE) -> PreflightResult:
    """What a training would take.

    Args:
        plan: The attempt that is to be made, and what it is to run on.
        root: Where the plan's claim is mounted.
        sample: Rows that are looked at, at most.

    Raises:
        FineTuneError: What the training would fail for before its first step.
    """
    training = plan.training
    bench = _open(training, open_store(training, root))
    config = _config(bench.base)
    model = _shape(config)
    refuse_foreign_tokenizer(model, bench.tokenizer)
    if training.adapter is not None:
        _refuse_misfit(model, training.adapter, bench.start)
    data = _data(training, bench, sample, packing=is_segmentable(_shape(config)))
    steps = _steps(training, data)
    if training.method not in KINDS:
        log.info("the memory that %s takes is not predicted", training.method)
        return _result(data, steps)
    rows = _rows(training, bench, data)
    needs = Needs(config, plan, rows, bench.store)
    memory = plan.device.memory_bytes if plan.device else None
    need = needs.of(training, rows.length, memory)
    fits = None if memory is None else need.peak <= MARGIN * memory
    verdict = Fit.UNKNOWN if fits is None else Fit.FITS if fits else Fit.DOES_NOT_FIT
    log.info("peak %.1f GiB with micro batch %d: %s", need.peak / 2**30, need.micro_batch, verdict)
    ways = needs.ways() if verdict is Fit.DOES_NOT_FIT else ()
    return _result(data, steps).model_copy(
        update={
            "verdict": verdict,
            "predicted_peak_bytes": need.peak,
            "micro_batch_size": need.micro_batch,
            "seconds": _seconds(plan, data, need),
            "ways": ways,
        }
    )


def _result(data: _Data, steps: int) -> PreflightResult:
    return PreflightResult(
        total_steps=steps,
        tokens=round(data.training.tokens / data.share),
        truncated_tokens=round(data.training.truncated_tokens / data.share),
        is_estimate=data.share < 1,
    )


def _open(plan: TrainingPlan, store: Store) -> Workbench:
    """The inputs without the base's weights, which nobody reads here: training verifies them."""
    base = store.without_weights(plan.base)
    revision = open_revision(store.verify(plan.dataset), plan.method)
    context = context_of(base)
    start = store.verify(plan.start) if plan.start else None
    if start:
        refuse_another_base(start, plan.base)
    tokenizer = load_tokenizer(base)
    renderer = Renderer(tokenizer, revision.row_format)
    return Workbench(store, base, start, revision, context, tokenizer, renderer, CPU)


def _config(base: Path) -> Any:  # noqa: ANN401 - transformers has no types
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(base), local_files_only=True)


def _shape(config: Any) -> Any:  # noqa: ANN401
    """The model without weights."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError) as error:
        raise FineTuneError(
            FailureReason.MODEL_NOT_FOUND, f"spec.baseModel: is no causal language model that can be read: {error}"
        ) from error


def _refuse_misfit(model: Any, adapter: LoraPlan, start: Path | None) -> None:  # noqa: ANN401
    """Refuse target modules that the model does not have, and an adapter of another model."""
    if start is not None:
        refuse_another_kind(adapter, start)
    # What PiSSA begins with is computed from weights; where adapters go does not hang on it.
    plain = adapter.model_copy(update={"variant": AdapterVariant.LORA})
    with torch.device("meta"):
        adapted = attach(model, plain, None)
    if start is None:
        return
    from peft import get_peft_model_state_dict

    wanted = {name: tuple(each.shape) for name, each in get_peft_model_state_dict(adapted).items()}
    with safe_open(start / ADAPTER_WEIGHTS, "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    if odd := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"spec.baseModel.fineTuneJob: {len(odd)} weights of its adapter do not fit spec.adapter and the base; "
            f"the first is {odd[0]}: {found.get(odd[0], 'missing')}, wanted {wanted.get(odd[0], 'none')}",
        )


def _data(plan: TrainingPlan, bench: Workbench, sample: int, *, packing: bool) -> _Data:
    if family := FAMILIES.get(plan.method):
        return _Data(family.prepare(plan, bench), 1.0, packing=False)
    rows = bench.revision.rows("train")
    packing = packing and plan.hyperparameters.packing
    if len(rows) <= sample:
        return _Data(prepare(plan, bench, rows, packing=packing), 1.0, packing)
    picked = random.Random(plan.hyperparameters.seed).sample(rows, sample)
    lenient = plan.model_copy(update={"truncated_share": min(1.0, _CERTAIN * plan.truncated_share)})
    log.info("%d of %d rows are looked at", sample, len(rows))
    return _Data(prepare(lenient, bench, picked, packing=packing), sample / len(rows), packing)


def _steps(plan: TrainingPlan, data: _Data) -> int:
    family = FAMILIES.get(plan.method)
    if family and family.total_steps:
        return family.total_steps(plan, data.training)
    return total_steps(plan, math.ceil(len(data.training.dataset) / data.share))


def _rows(plan: TrainingPlan, bench: Workbench, data: _Data) -> Rows:
    if plan.online:
        # Prompts that are too long are refused, and answers end where they must: there is nothing to cut.
        answer = plan.online.max_completion_length
        return Rows(data.training.sequence_length, supervised=1.0, cut_at=lambda _: 1.0, answer=answer)
    lengths = _lengths(data.training.dataset)
    total = max(1, int(lengths.sum()))

    def cut_at(length: int) -> float:
        # Text is split, and loses nothing.
        return 0.0 if plan.method is Method.CPT else float(np.maximum(lengths - length, 0).sum() / total)

    longest = data.training.sequence_length if data.packing else int(lengths.max())
    return Rows(
        length=min(longest, bench.context),
        supervised=data.training.supervised_tokens / max(1, data.training.tokens),
        cut_at=cut_at,
    )


def _lengths(dataset: Any) -> Any:  # noqa: ANN401 - datasets has no types
    """Tokens of every sequence: packed ones one by one, both answers of a pair each with their prompt."""
    columns = set(dataset.column_names)
    if "seq_lengths" in columns:
        found = [length for row in dataset["seq_lengths"] for length in row]
    else:
        prompts = [len(ids) for ids in dataset["prompt_ids"]] if "prompt_ids" in columns else [0] * len(dataset)
        answers = columns & {"chosen_ids", "rejected_ids", "completion_ids"}
        found = [
            prompt + len(ids) for name in sorted(answers) for prompt, ids in zip(prompts, dataset[name], strict=True)
        ]
    return np.array(found, dtype=np.int64)


def _seconds(plan: PreflightPlan, data: _Data, need: Need) -> float | None:
    if plan.device is None or plan.device.flops is None or plan.training.online:
        return None  # how long answers get, and how fast they are written, is not known before
    tokens = plan.training.hyperparameters.epochs * data.training.tokens / data.share
    return tokens * need.flops_per_token / (plan.device.flops * plan.training.parallelism.ranks)
