"""Adapters: fresh or an earlier job's, in all variants; how they are saved and resumed bit by bit.

LoRA, rsLoRA     frozen base, published as they are
QLoRA            the base is held in 4 bits while training; the adapter is published for the 16-bit base
PiSSA            begins as the base's principal components and changes the base; published as the equal plain LoRA
DoRA             trains magnitudes too; no server mixes it with others, so the merged model is published
"""

import json
import logging
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import Method
from finetune_contract.training import AdapterVariant, LoraPlan, TrainingPlan
from finetune_store.manifests import read_manifest
from finetune_trainer.train.model import Device, load_model

log = logging.getLogger(__name__)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
INITIAL_WEIGHTS = "initial_adapter.safetensors"
"""PiSSA's first factors, in every checkpoint: what the base model's weights were reduced by."""

_DEFAULT = "default"
"""peft's name of the adapter that is trained; TRL keeps a frozen copy as `ref` where a method needs one."""

_REFERENCE = "ref"

_SVD_ITERATIONS = 16
"""Subspace iterations of PiSSA's fast SVD; the paper (Meng et al. 2024, table 4) finds 16 as good as the exact one."""


def makes_whole_model(plan: TrainingPlan) -> bool:
    """Whether the result is a model with all its weights, not an adapter for its base."""
    return (
        plan.adapter is None or plan.adapter.variant is AdapterVariant.DORA or plan.method is Method.REWARD
    )  # fmt: skip


def quantization(plan: LoraPlan | None, device: Device) -> Any:  # noqa: ANN401 - transformers has no types
    """How the frozen base is held: 4 bits for QLoRA (Dettmers et al. 2023), else None."""
    if plan is None or plan.variant is not AdapterVariant.QLORA:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if device.is_cuda else torch.float32,
        # Heads stay as they are: a language model's, and the one that a reward model gets.
        llm_int8_skip_modules=["lm_head", "score"],
    )


def attach(model: Any, plan: LoraPlan, start: Path | None, task: str = "CAUSAL_LM") -> Any:  # noqa: ANN401
    """The model with an adapter that is trained: a fresh one, or the one in `start`.

    Raises:
        FineTuneError: InvalidPlan when the target modules are not the model's, or `start` is another kind of adapter.
    """
    from peft import LoraConfig, get_peft_model

    modules = plan.target_modules if isinstance(plan.target_modules, str) else list(plan.target_modules)
    is_pissa = plan.variant is AdapterVariant.PISSA
    if start is not None:
        refuse_another_kind(plan, start)
    config = LoraConfig(
        task_type=task,
        r=plan.rank,
        lora_alpha=plan.alpha,
        lora_dropout=plan.dropout,
        target_modules=modules,
        use_dora=plan.variant is AdapterVariant.DORA,
        use_rslora=plan.variant is AdapterVariant.RSLORA,
        init_lora_weights=f"pissa_niter_{_SVD_ITERATIONS}" if is_pissa else True,
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise FineTuneError(
            FailureReason.INVALID_PLAN, f"spec.adapter.targetModules: {modules!r} does not fit the model: {error}"
        ) from error
    # A second adapter, such as TRL's frozen reference, must not take components out of the base again.
    adapted.peft_config[_DEFAULT].init_lora_weights = True
    adapted.initial_adapter = _weights(adapted) if is_pissa else None
    if start is not None:
        _load(adapted, start)
        log.info("the adapter goes on from the one of an earlier job")
    return adapted


def merged_into(base: Path, adapter: Path, dtype: torch.dtype, directory: Path) -> None:
    """Write the base with an adapter merged into its weights: freshly loaded ones, never quantised ones."""
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as scratch:
        write_plain_adapter(adapter, Path(scratch))
        model = PeftModel.from_pretrained(load_model(base, dtype, Device("cpu")), scratch).merge_and_unload()
    model.save_pretrained(str(directory))


def refuse_another_base(start: Path, base: StoredReference) -> None:
    """Refuse to go on from an adapter that was trained on another base.

    Raises:
        FineTuneError: AdapterMismatch, StorageUnavailable when it has no manifest.
    """
    theirs = read_manifest(start).lineage.get("base")
    if theirs is not None and theirs != base.digest:
        raise FineTuneError(
            FailureReason.ADAPTER_MISMATCH,
            f"spec.baseModel.fineTuneJob: its adapter was trained on {theirs}, and the base here is {base.digest}",
        )


def refuse_another_kind(plan: LoraPlan, start: Path) -> None:
    """Refuse to go on from an adapter of another shape than the plan's.

    Raises:
        FineTuneError: InvalidPlan.
    """
    config = json.loads((start / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if plan.variant is AdapterVariant.PISSA:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            "spec.adapter.type: PiSSA begins from the base's own components and cannot go on from an adapter; use LoRA",
        )
    wanted = {
        "rank": ("r", plan.rank),
        "alpha": ("lora_alpha", plan.alpha),
        "type rsLoRA": ("use_rslora", plan.variant is AdapterVariant.RSLORA),
    }
    for field, (name, value) in wanted.items():
        if config.get(name) != value:
            raise FineTuneError(
                FailureReason.INVALID_PLAN,
                f"spec.adapter: {field} is {value}, but the adapter of spec.baseModel.fineTuneJob has "
                f"{config.get(name)}: it is trained further, so both have to be the same",
            )


# --- weights, by peft's names in a file


def _weights(model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(model, adapter_name=_DEFAULT)
    return {name: tensor.detach().clone().cpu() for name, tensor in found.items()}


def _load(model: Any, directory: Path) -> None:  # noqa: ANN401
    """Copy an adapter's weights into the model's, which keep their precision (peft's own loading returns fp32)."""
    from peft import set_peft_model_state_dict

    tensors = load_file(directory / ADAPTER_WEIGHTS)
    try:
        result = set_peft_model_state_dict(model, tensors, adapter_name=_DEFAULT)
    except RuntimeError as error:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.adapter: {error}") from error
    missing = [name for name in result.missing_keys if f".{_DEFAULT}." in name]
    if odd := [*missing, *result.unexpected_keys]:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"spec.adapter.targetModules: {len(odd)} weights of the adapter in {directory.name} do not fit, "
            f"the first is {odd[0]}; name the modules that it was trained on",
        )


class ExactAdapters:
    """For TRL's trainers: an adapter is trained in fp32, saved alone, and resumed exactly.

    TRL turns a QLoRA adapter to bf16, transformers resumes it as fp32: half a run in either precision. And with a
    reference adapter beside it, transformers looks for the trained one in the wrong place.
    """

    model: Any
    args: Any
    is_fsdp_enabled: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Build TRL's trainer, then undo its change of precision."""
        super().__init__(*args, **kwargs)
        if _is_adapted(self.model):
            for name, parameter in self.model.named_parameters():
                if f".{_DEFAULT}." in name and parameter.is_floating_point():
                    parameter.data = parameter.data.float()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc] # the trainer's
        directory = Path(output_dir or "")
        if output_dir is None or not _is_adapted(self.model) or not self.args.should_save:
            return
        shutil.rmtree(directory / _REFERENCE, ignore_errors=True)
        if self.model.initial_adapter is not None:
            save_file(self.model.initial_adapter, directory / INITIAL_WEIGHTS, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        directory = Path(resume_from_checkpoint)
        # Sharded weights are FSDP's to load.
        is_ours = _is_adapted(self.model) and not self.is_fsdp_enabled
        if not is_ours or not (directory / ADAPTER_WEIGHTS).is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        if self.model.initial_adapter is not None:
            _reduce_alike(self.model, load_file(directory / INITIAL_WEIGHTS))
        _load(self.model, directory)


def _is_adapted(model: Any) -> bool:  # noqa: ANN401
    return hasattr(model, "initial_adapter")


def _reduce_alike(model: Any, first: dict[str, torch.Tensor]) -> None:  # noqa: ANN401
    """Reduce the base by the factors of the run's first attempt, should another machine have found others."""
    ours = model.initial_adapter
    for name, layer in _layers(model):
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        if torch.equal(ours[a], first[a]) and torch.equal(ours[b], first[b]):
            continue
        log.info("%s: this machine finds other principal components than the run began with", name)
        weight = layer.get_base_layer().weight
        change = layer.scaling[_DEFAULT] * (ours[b] @ ours[a] - first[b] @ first[a])
        weight.data += change.to(weight.device, weight.dtype)
    model.initial_adapter = first


def _layers(model: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


# --- files of an artifact


def plain_adapter(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A checkpoint's adapter as one for the unchanged base: weights and configuration.

    PiSSA's base was reduced by B0 A0 (its first factors), so that W - B0 A0 + B A = W + [B | -B0] [A ; A0]: a plain
    LoRA of twice the rank (Meng et al. 2024, section 3).
    """
    weights = load_file(checkpoint / ADAPTER_WEIGHTS)
    config = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if not (checkpoint / INITIAL_WEIGHTS).is_file():
        return weights, config
    first = load_file(checkpoint / INITIAL_WEIGHTS)
    doubled = {}
    for name, tensor in weights.items():
        is_a = ".lora_A." in name
        if not is_a and ".lora_B." not in name:
            doubled[name] = tensor
            continue
        other = first[name].to(tensor.dtype)
        doubled[name] = torch.cat([tensor, other if is_a else -other], dim=0 if is_a else 1).contiguous()
    # The scale alpha / r (or alpha / sqrt(r)) stays as it was.
    factor = math.sqrt(2) if config["use_rslora"] else 2
    return doubled, {**config, "r": 2 * config["r"], "lora_alpha": factor * config["lora_alpha"]}


def write_plain_adapter(checkpoint: Path, directory: Path, **changes: Any) -> None:  # noqa: ANN401
    """Write a checkpoint's adapter as one for the unchanged base, with `changes` in its configuration."""
    weights, config = plain_adapter(checkpoint)
    config |= changes
    save_file(weights, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    # peft writes sets as lists, in an order that differs between processes.
    ordered = {key: sorted(value) if key.endswith("modules") and isinstance(value, list) else value
               for key, value in config.items()}  # fmt: skip
    (directory / ADAPTER_CONFIG).write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
