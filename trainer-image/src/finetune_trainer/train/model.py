"""The base model and its tokenizer, from the store; the adapter on top."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import TrainingPlan

log = logging.getLogger(__name__)

_UNKNOWN_CONTEXT = 2048
"""Tokens, for a model that does not say: small enough for all of them."""


SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How whatever comes from a stored directory is loaded: nothing is fetched, and no code of a model's own is run."""


@dataclass(frozen=True)
class Device:
    """Where and in which precision the model is computed."""

    type: str
    """`cpu` or `cuda`."""

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.type == "cuda"

    def dtype(self, *, trained: bool) -> torch.dtype:
        """Precision of weights: bf16 on a GPU, but fp32 where they are trained themselves (bf16 would lose updates)."""
        return torch.bfloat16 if self.is_cuda and not trained else torch.float32


CPU = Device("cpu")


def find_device(plan: TrainingPlan) -> Device:
    """The GPU if there is one.

    Raises:
        FineTuneError: InvalidPlan when there are not as many GPUs as ranks in this pod.
    """
    if not torch.cuda.is_available():
        return CPU
    wanted, found = plan.parallelism.processes_per_node, torch.cuda.device_count()
    if wanted != found:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"spec.resources: {wanted} GPUs were asked for and {found} are usable in the pod; ask for whole GPUs, "
            "with a resource name that ends in /gpu",
        )
    return Device("cuda")


def load_tokenizer(directory: Path) -> Any:  # noqa: ANN401 - transformers has no types
    """The tokenizer of a stored model.

    Raises:
        FineTuneError: TokenizerMismatch when there is none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), **SAFE)
    except (OSError, ValueError, KeyError) as error:
        raise FineTuneError(
            FailureReason.TOKENIZER_MISMATCH, f"spec.baseModel: its tokenizer cannot be read: {error}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(directory: Path, dtype: torch.dtype, device: Device, quantization: Any = None) -> Any:  # noqa: ANN401
    """A stored causal language model.

    Args:
        directory: Where it is stored.
        dtype: Precision of its weights, as far as they are not quantised.
        device: Where it is put.
        quantization: transformers' quantisation config for its linear layers, or None.

    Raises:
        FineTuneError: ModelNotFound when the directory holds none.
    """
    from transformers import AutoModelForCausalLM

    # Quantised weights are made on the device; they cannot be moved afterwards.
    held = {"quantization_config": quantization, "device_map": {"": device.type}} if quantization else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(str(directory), dtype=dtype, use_safetensors=True, **SAFE, **held)
    except (OSError, ValueError, KeyError) as error:
        raise FineTuneError(
            FailureReason.MODEL_NOT_FOUND, f"spec.baseModel: is no causal language model that can be read: {error}"
        ) from error
    return model if quantization else model.to(device.type)


def stored_dtype(directory: Path) -> torch.dtype:
    """The precision a model's weights were published in; fp32 when its config does not say."""
    name = getattr(_config(directory), "dtype", None) or torch.float32
    return name if isinstance(name, torch.dtype) else getattr(torch, str(name))


def context_of(directory: Path) -> int:
    """Tokens that a stored model can attend to."""
    return int(getattr(_config(directory), "max_position_embeddings", None) or _UNKNOWN_CONTEXT)


def _config(directory: Path) -> Any:  # noqa: ANN401 - transformers has no types
    from transformers import AutoConfig

    if not (directory / "config.json").is_file():
        raise FineTuneError(FailureReason.MODEL_NOT_FOUND, "spec.baseModel: the directory holds no config.json")
    try:
        return AutoConfig.from_pretrained(str(directory), **SAFE).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise FineTuneError(FailureReason.MODEL_NOT_FOUND, f"spec.baseModel: config.json: {error}") from error


def refuse_foreign_tokenizer(model: Any, tokenizer: Any) -> None:  # noqa: ANN401 - transformers has no types
    """Refuse a tokenizer that knows more tokens than the model has embeddings for.

    Raises:
        FineTuneError: TokenizerMismatch.
    """
    embeddings = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > embeddings:
        raise FineTuneError(
            FailureReason.TOKENIZER_MISMATCH,
            f"spec.baseModel: the tokenizer has {len(tokenizer)} tokens and the model embeddings for {embeddings}",
        )
