"""Rows with different adapters in one forward pass, against peft with one adapter at a time."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finetune_server import mixing
from finetune_server.mixing import MixedLinear, RowAdapters, mix
from finetune_server.model import BASE
from tests.trainer.server.tiny import Shop, quiet

ADAPTERS: dict[str, dict[str, Any]] = {
    "all": {"r": 4, "target_modules": "all-linear"},
    "attention": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "pattern": {"r": 2, "target_modules": "all-linear", "rank_pattern": {"q_proj": 6}, "alpha_pattern": {"up_proj": 3}},
    "rs": {"r": 4, "target_modules": ["down_proj"], "use_rslora": True},
    "one layer": {"r": 3, "target_modules": ["k_proj", "up_proj"], "layers_to_transform": [1]},
}
BATCHES = [
    ["all"],
    [BASE],
    [BASE, BASE],
    ["attention", "attention"],
    ["all", BASE, "all"],
    ["all", "one layer"],
    ["one layer", "rs", BASE, "pattern", "attention", "all", "rs"],
]


@pytest.fixture(scope="module")
def tuned(shop: Shop) -> Any:
    torch.manual_seed(0)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(shop.base_path, dtype=torch.float32)
        for name, settings in ADAPTERS.items():
            config = LoraConfig(task_type="CAUSAL_LM", lora_alpha=16, lora_dropout=0.5, **settings)
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
            else:
                model = get_peft_model(model, config, adapter_name=name)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.arange(3, 10)[None]


@pytest.fixture(scope="module")
def alone(tuned: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What peft computes for each adapter by itself; before its layers are replaced."""
    found = {}
    with torch.inference_mode():
        for name in ADAPTERS:
            tuned.set_adapter(name)
            found[name] = tuned(input_ids=ids).logits[0]
        with tuned.disable_adapter():
            found[BASE] = tuned(input_ids=ids).logits[0]
    return found


@pytest.fixture(scope="module")
def mixed(tuned: Any, alone: dict[str, torch.Tensor]) -> tuple[Any, RowAdapters]:
    rows = RowAdapters(torch.device("cpu"))
    model = tuned.get_base_model()
    mix(model, rows)
    return model, rows


@pytest.fixture(params=[mixing._SMALL, 0], ids=["copies for each row", "rows in groups"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_SMALL", request.param)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("batch", BATCHES, ids=", ".join)
@torch.inference_mode()
def test_a_row_is_as_if_alone(
    mixed: tuple[Any, RowAdapters],
    alone: dict[str, torch.Tensor],
    ids: torch.Tensor,
    batch: list[str],
) -> None:
    model, rows = mixed
    rows.assign([])  # what was chosen for the same rows is not to be remembered
    rows.assign(batch)

    logits = model(input_ids=ids.repeat(len(batch), 1)).logits

    for row, name in zip(logits, batch, strict=True):
        torch.testing.assert_close(row, alone[name], atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("either_way")
@torch.inference_mode()
def test_numbers_that_are_not_finite_stay_in_their_row(mixed: tuple[Any, RowAdapters]) -> None:
    model, rows = mixed
    layer = next(one for one in model.modules() if isinstance(one, MixedLinear))
    rows.assign([])
    rows.assign(["all", "attention", BASE])
    x = torch.ones(3, 2, layer.base_layer.in_features)
    x[1] = torch.inf

    result = layer(x)

    assert result[0].isfinite().all()
    assert result[2].isfinite().all()
    assert not result[1].isfinite().any()


@pytest.mark.usefixtures("either_way")
@torch.inference_mode()
def test_an_adapter_of_numbers_that_are_not_finite_spoils_its_own_rows(mixed: tuple[Any, RowAdapters]) -> None:
    model, _ = mixed
    layer = copy.deepcopy(next(one for one in model.modules() if isinstance(one, MixedLinear)))
    layer._down[0] = layer._up[0] = torch.nan
    layer._rows.assign([layer._layout[0], BASE, layer._layout[1], BASE])

    result = layer(torch.ones(4, 2, layer.base_layer.in_features))

    assert [bool(row.isfinite().all()) for row in result] == [False, True, True, True]


def test_rows_that_are_not_told_apart_are_an_error(mixed: tuple[Any, RowAdapters]) -> None:
    """Layers that see tokens without their rows, as experts do, would mix up adapters."""
    model, rows = mixed
    layer = next(one for one in model.modules() if isinstance(one, MixedLinear))
    rows.assign(["all", "attention"])

    with pytest.raises(RuntimeError, match="does not say which of 2 rows"):
        layer(torch.ones(6, layer.base_layer.in_features))


def test_no_peft_layer_is_left(mixed: tuple[Any, RowAdapters]) -> None:
    model, _ = mixed

    assert sum(isinstance(one, MixedLinear) for one in model.modules()) == 3 * 7
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
