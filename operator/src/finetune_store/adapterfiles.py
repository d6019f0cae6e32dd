"""What an adapter's files say of it, without loading a weight: its configuration and the names in its safetensors."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_contract.failure import FailureReason, FineTuneError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_HEADER_LIMIT = 100 * 1024 * 1024
"""Bytes of a safetensors header, as the format's own reader allows."""
_LOW_RANK = re.compile(r"^(?P<module>.+)\.lora_(?P<part>A|embedding_A)(\.weight)?$")
_LAYER = re.compile(r"\.(?:layers|h|blocks|block|layer)\.(?P<number>\d+)\.")
_LAYERS_OWN = re.compile(r"\.(lora_(embedding_)?[AB](\.weight)?|lora_magnitude_vector(\.weight)?|bias)$")
"""What an adapted layer may have; all else was trained whole."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""How such initialisations begin in `init_lora_weights` (peft 0.21)."""


def facts_of(directory: Path, base: Path) -> AdapterFacts:
    """Read an adapter's facts.

    Args:
        directory: Holds `adapter_config.json` and `adapter_model.safetensors`.
        base: The base model's directory, with its `config.json`.

    Raises:
        FineTuneError: ContractViolation, naming the file that is no adapter's.
    """
    config, base_config = (_json_object(file, file.read_bytes()) for file in (directory / CONFIG, base / "config.json"))
    shapes = tensor_shapes(directory / WEIGHTS)
    ranks: dict[str, int] = {}
    for name, shape in shapes.items():
        found = _LOW_RANK.match(name)
        if found and len(shape) > 1:
            ranks[found["module"]] = shape[0]
    if not ranks:
        raise FineTuneError(
            FailureReason.CONTRACT_VIOLATION, f"{directory / WEIGHTS}: there is no low-rank matrix in it"
        )
    quantization = base_config.get("quantization_config") or {}
    return AdapterFacts(
        rank=max(ranks.values()),
        targets=tuple(sorted({module.rpartition(".")[2] for module in ranks})),
        family=base_config.get("model_type"),
        quantization=quantization.get("quant_method"),
        features=tuple(sorted(_features(config, ranks, shapes))),
    )


def _features(
    config: Mapping[str, Any], ranks: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> set[AdapterFeature]:
    init = config.get("init_lora_weights")
    signs = {
        AdapterFeature.DORA: config.get("use_dora") or any("lora_magnitude_vector" in name for name in shapes),
        AdapterFeature.BIAS: config.get("bias", "none") != "none"
        or config.get("lora_bias")
        or any(name.endswith(".bias") for name in shapes),
        AdapterFeature.WHOLE_MODULES: config.get("modules_to_save")
        or config.get("trainable_token_indices")
        or any(not _LAYERS_OWN.search(name) for name in shapes),
        AdapterFeature.EMBEDDINGS: any("lora_embedding_" in name for name in shapes),
        AdapterFeature.PATTERNS: config.get("rank_pattern")
        or config.get("alpha_pattern")
        or len(set(ranks.values())) > 1,
        AdapterFeature.SOME_LAYERS: _lacks_layers(ranks),
        AdapterFeature.CHANGED_BASE: isinstance(init, str) and init.lower().startswith(_CHANGES_BASE),
    }
    return {feature for feature, is_there in signs.items() if is_there}


def _lacks_layers(ranks: Mapping[str, int]) -> bool:
    """Whether a module that one layer has adapted is not adapted in another, or the layers have gaps."""
    layers: dict[str, set[int]] = defaultdict(set)
    for module in ranks:
        if found := _LAYER.search(f".{module}."):
            layers[module.rpartition(".")[2]].add(int(found["number"]))
    numbers = set().union(*layers.values()) if layers else set()
    return any(theirs != set(range(max(numbers) + 1)) for theirs in layers.values())


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, from its header alone (format: 8 bytes of length, then JSON).

    Raises:
        FineTuneError: ContractViolation, when it is no such file.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, file.stat().st_size):
            raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{file}: is not a safetensors file")
        header = _json_object(file, stream.read(length))
    try:
        return {name: tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
    except (KeyError, TypeError, ValueError) as error:
        raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{file}: its header is not safetensors'") from error


def _json_object(file: Path, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{file}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise FineTuneError(FailureReason.CONTRACT_VIOLATION, f"{file}: is not a JSON object")
    return document
