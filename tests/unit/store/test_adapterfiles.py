"""What an adapter's files say of it, without a weight being loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.adapterfacts import AdapterFeature
from finetune_contract.failure import FineTuneError
from finetune_store.adapterfiles import facts_of, tensor_shapes

PREFIX = "base_model.model.model."


def header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    entries = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for name, shape in shapes.items()}
    content = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return len(content).to_bytes(8, "little") + content


def layers(count: int = 2, rank: int = 8, modules: tuple[str, ...] = ("q_proj", "v_proj")) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in range(count):
        for module in modules:
            name = f"{PREFIX}layers.{layer}.self_attn.{module}"
            found[f"{name}.lora_A.weight"] = (rank, 64)
            found[f"{name}.lora_B.weight"] = (64, rank)
    return found


def write(root: Path, shapes: dict[str, Any], base: dict[str, Any] | None = None, **config: Any) -> tuple[Path, Path]:
    for name in ("adapter", "base"):
        (root / name).mkdir()
    (root / "adapter/adapter_config.json").write_text(json.dumps({"r": 8, "bias": "none", **config}))
    (root / "adapter/adapter_model.safetensors").write_bytes(header(shapes))
    (root / "base/config.json").write_text(json.dumps({"model_type": "llama", **(base or {})}))
    return root / "adapter", root / "base"


def test_a_plain_adapter(tmp_path: Path) -> None:
    facts = facts_of(*write(tmp_path, layers()))
    assert (facts.rank, facts.targets, facts.family) == (8, ("q_proj", "v_proj"), "llama")
    assert facts.features == ()
    assert facts.quantization is None


def test_a_quantised_base_is_told(tmp_path: Path) -> None:
    facts = facts_of(*write(tmp_path, layers(), {"quantization_config": {"quant_method": "gptq"}}))
    assert facts.quantization == "gptq"


GAP = {name: shape for name, shape in layers(3).items() if "layers.1." not in name}
LAST = f"{PREFIX}layers.1.self_attn.q_proj"
MORE: list[tuple[dict[str, Any], dict[str, Any], AdapterFeature]] = [
    ({}, {"use_dora": True}, AdapterFeature.DORA),
    ({f"{LAST}.lora_magnitude_vector": (64,)}, {}, AdapterFeature.DORA),
    ({}, {"bias": "lora_only"}, AdapterFeature.BIAS),
    ({}, {"lora_bias": True}, AdapterFeature.BIAS),
    ({f"{PREFIX}layers.0.self_attn.q_proj.bias": (64,)}, {}, AdapterFeature.BIAS),
    ({"base_model.model.lm_head.weight": (99, 64)}, {}, AdapterFeature.WHOLE_MODULES),
    ({f"{PREFIX}embed_tokens.lora_embedding_A": (8, 99)}, {}, AdapterFeature.EMBEDDINGS),
    ({}, {"trainable_token_indices": [5]}, AdapterFeature.WHOLE_MODULES),
    ({}, {"alpha_pattern": {"q_proj": 4}}, AdapterFeature.PATTERNS),
    ({f"{LAST}.lora_A.weight": (4, 64)}, {}, AdapterFeature.PATTERNS),
    ({f"{PREFIX}layers.2.self_attn.q_proj.lora_A.weight": (8, 64)}, {}, AdapterFeature.SOME_LAYERS),
    ({}, {"init_lora_weights": "pissa_niter_16"}, AdapterFeature.CHANGED_BASE),
]


@pytest.mark.parametrize(("tensors", "config", "feature"), MORE)
def test_what_makes_an_adapter_special_is_found(
    tmp_path: Path, tensors: dict[str, Any], config: dict[str, Any], feature: AdapterFeature
) -> None:
    assert facts_of(*write(tmp_path, layers() | tensors, **config)).features == (feature,)


def test_a_layer_that_nothing_adapts_is_found(tmp_path: Path) -> None:
    assert facts_of(*write(tmp_path, GAP)).features == (AdapterFeature.SOME_LAYERS,)


@pytest.mark.parametrize("init", [True, "gaussian", "eva"])
def test_an_initialisation_that_leaves_the_base_alone_is_plain(tmp_path: Path, init: object) -> None:
    assert facts_of(*write(tmp_path, layers(), init_lora_weights=init)).features == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04pickled",
        b"\xff" * 16,
        (4).to_bytes(8, "little") + b"[1]\n",
        (8).to_bytes(8, "little") + b'{"a": 1}',
        header({}),
    ],
)
def test_files_that_are_no_adapter_are_named(tmp_path: Path, content: bytes) -> None:
    directory, base = write(tmp_path, layers())
    (directory / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(FineTuneError, match=r"adapter_model\.safetensors"):
        facts_of(directory, base)


def test_shapes_come_from_the_header_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(header({"a": (2, 3)}) + b"\0" * 100)
    assert tensor_shapes(tmp_path / "x") == {"a": (2, 3)}
