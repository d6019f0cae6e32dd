"""Adapters that could only be served in part are refused at the start, by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.adapters import add_adapter
from finetune_server.model import threads_for, usable_cpus
from tests.trainer.server.tiny import Shop, quiet, write_adapter


@pytest.fixture
def adapter(shop: Shop, tmp_path: Path) -> Path:
    with quiet():
        write_adapter(shop.base_path, tmp_path / "adapter", 1)
    return tmp_path / "adapter"


def add(shop: Shop, *directories: Path) -> Any:
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(shop.base_path, dtype=torch.float32)
        for number, directory in enumerate(directories):
            model = add_adapter(model, "triage", directory, f"adapter_{number:04d}")
    return model


def change_config(adapter: Path, **changes: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(adapter: Path, change: Any) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_what_fits_is_added(shop: Shop, adapter: Path) -> None:
    assert sorted(add(shop, adapter, adapter).peft_config) == ["adapter_0000", "adapter_0001"]


@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias all"),
        ({"r": 2}, "does not fit the base model"),
        ({"target_modules": ["gate_of_another_family"]}, "does not fit the base model"),
        ({"target_modules": ["q_proj"]}, "do not fit the base model"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_configs_that_do_not_fit(
    shop: Shop, adapter: Path, tmp_path: Path, changes: dict[str, object], says: str, is_second: bool
) -> None:
    with quiet():
        write_adapter(shop.base_path, tmp_path / "good", 2)
    change_config(adapter, **changes)

    with pytest.raises(FineTuneError, match=rf"^adapters\[triage\]: .*{says}") as caught:
        add(shop, *([tmp_path / "good"] if is_second else []), adapter)

    assert caught.value.reason is FailureReason.INVALID_PLAN


def test_missing_weights(shop: Shop, adapter: Path) -> None:
    change_weights(adapter, lambda weights: weights.pop(min(weights)))

    with pytest.raises(FineTuneError, match="1 weights do not fit"):
        add(shop, adapter)


def test_weights_that_are_not_finite(shop: Shop, adapter: Path) -> None:
    change_weights(adapter, lambda weights: weights[min(weights)].fill_(float("nan")))

    with pytest.raises(FineTuneError, match="not finite"):
        add(shop, adapter)


def test_a_directory_that_is_not_there(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(FineTuneError, match="nowhere"):
        add(shop, tmp_path / "nowhere")


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_threads_follow_the_container(tmp_path: Path, quota: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)

    assert usable_cpus(tmp_path / "cpu.max") == expected or usable_cpus(tmp_path / "none")


def test_a_small_model_gets_one_thread() -> None:
    assert threads_for(2_000_000) == 1
    assert threads_for(10**12) == usable_cpus()
