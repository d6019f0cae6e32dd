"""Adding LoRA adapters to a base model, refusing what cannot be served truly beside others."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftType

from finetune_contract.failure import FailureReason, FineTuneError

_NOT_IN_MIXED_BATCHES = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "target_parameters",
    "layer_replication",
)
"""Settings of a LoraConfig that peft refuses in, or leaves out of, a batch with several adapters."""


def add_adapter(model: Any, name: str, directory: Path, key: str) -> Any:  # noqa: ANN401 - peft is untyped
    """The model with one adapter more.

    Args:
        model: A transformers model, or what this function returned for the adapter before.
        name: What users call the adapter, for messages.
        directory: Holds adapter_config.json and adapter_model.safetensors.
        key: What peft calls the adapter.

    Raises:
        FineTuneError: InvalidPlan when the adapter does not fit or could only be served in part.
    """
    try:
        config = PeftConfig.from_pretrained(str(directory))
        if unfit := unfit_settings(config):
            raise _refusal(name, f"{', '.join(unfit)} cannot share a batch with other adapters; serve it merged")
        if not isinstance(model, PeftModel):
            config.inference_mode = True
            model = PeftModel(model, config, adapter_name=key)
        device = str(next(model.parameters()).device)
        result = model.load_adapter(str(directory), adapter_name=key, torch_device=device)
    except (ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
        raise _refusal(name, f"{directory} does not fit the base model: {error}") from error
    # peft loads what fits and says nothing of the rest.
    if odd := [*result.missing_keys, *result.unexpected_keys]:
        raise _refusal(name, f"{directory}: {len(odd)} weights do not fit the base model, first {odd[0]}")
    if is_not_finite(model, key):
        raise _refusal(name, f"{directory}: has weights that are not finite")
    return model


def unfit_settings(config: Any) -> list[str]:  # noqa: ANN401
    """The settings of an adapter that rule out serving it beside others."""
    if config.peft_type != PeftType.LORA:
        return [f"peftType {config.peft_type}"]
    unfit = [name for name in _NOT_IN_MIXED_BATCHES if getattr(config, name, None)]
    # A bias replaces the base model's own, so all other models would be answered with it.
    return unfit if config.bias == "none" else [*unfit, f"bias {config.bias}"]


def is_not_finite(model: Any, key: str) -> bool:  # noqa: ANN401
    """Whether any weight of an adapter is NaN or infinite."""
    weights = (weight for name, weight in model.named_parameters() if f".{key}." in name)
    return any(not bool(torch.isfinite(weight).all()) for weight in weights)


def _refusal(name: str, message: str) -> FineTuneError:
    return FineTuneError(FailureReason.INVALID_PLAN, f"adapters[{name}]: {message}")
