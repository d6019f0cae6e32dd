"""Reward models: a base with one number as its output, learnt from preferences; merged, never an adapter."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.adapters import attach, quantization, write_plain_adapter
from finetune_trainer.train.model import SAFE, Device
from finetune_trainer.train.workbench import Workbench

_BATCH_TOKENS = 4096


def load(directory: Path, dtype: torch.dtype, device: Device, quantized: Any = None) -> Any:  # noqa: ANN401 - no types
    """A stored model with a head of one output; from a language model, the head is new.

    Raises:
        FineTuneError: ModelNotFound when the directory holds none that can have one.
    """
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    held = {"quantization_config": quantized, "device_map": {"": device.type}} if quantized else {}
    try:
        with suppress_seqcls_warning():
            model = AutoModelForSequenceClassification.from_pretrained(
                str(directory), dtype=dtype, num_labels=1, use_safetensors=True, **SAFE, **held
            )
    except (OSError, ValueError, KeyError) as error:
        raise FineTuneError(
            FailureReason.MODEL_NOT_FOUND, f"spec.baseModel: no reward model can be made of it: {error}"
        ) from error
    return model if quantized else model.to(device.type)


def load_trained(plan: TrainingPlan, bench: Workbench) -> Any:  # noqa: ANN401
    """The model to train: with an adapter, the head is trained beside it."""
    dtype = bench.device.dtype(trained=plan.adapter is None)
    model = load(bench.base, dtype, bench.device, quantization(plan.adapter, bench.device))
    model.config.get_text_config().pad_token_id = bench.tokenizer.pad_token_id
    return model if plan.adapter is None else attach(model, plan.adapter, None, "SEQ_CLS")


def write(plan: TrainingPlan, checkpoint: Path, bench: Workbench, dtype: torch.dtype, directory: Path) -> None:
    """A reward model's weights, from the checkpoint of the last step."""
    if plan.adapter is None:
        model = load(checkpoint, dtype, Device("cpu"))
    else:
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as scratch:
            write_plain_adapter(checkpoint, Path(scratch))
            model = PeftModel.from_pretrained(load(bench.base, dtype, Device("cpu")), scratch).merge_and_unload()
    model.config.get_text_config().pad_token_id = bench.tokenizer.pad_token_id
    model.save_pretrained(str(directory))


@torch.inference_mode()
def rewards_of(model: Any, sequences: Sequence[Sequence[int]], pad: int) -> list[float]:  # noqa: ANN401
    """The reward of each sequence of tokens, in their order."""
    found: dict[int, float] = {}
    order = sorted(range(len(sequences)), key=lambda at: -len(sequences[at]))
    while order:
        size = max(1, _BATCH_TOKENS // max(1, len(sequences[order[0]])))
        batch, order = order[:size], order[size:]
        width = len(sequences[batch[0]])
        ids = torch.full((len(batch), width), pad)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, at in enumerate(batch):
            ids[row, : len(sequences[at])] = torch.tensor(list(sequences[at]))
            mask[row, : len(sequences[at])] = 1
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
        found.update(zip(batch, logits[:, 0].float().tolist(), strict=True))
    return [found[at] for at in range(len(sequences))]
