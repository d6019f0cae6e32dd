from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from finetune_trainer.train.attention import SEGMENTED, is_segmentable, register
from tests.trainer import tiny

LENGTHS = [5, 1, 17, 9]


def collated(rows: list[torch.Tensor]) -> dict[str, Any]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    pack = {"input_ids": torch.cat(rows).tolist(), "seq_lengths": [len(row) for row in rows]}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([pack])
    batch.pop("labels")
    return dict(batch)


def mistral(**_: Any) -> Any:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=448, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=4, max_position_embeddings=64,
    )  # fmt: skip
    return MistralForCausalLM(config)


@pytest.mark.parametrize("kind", ["grouped heads", "sliding window"])
def test_a_pack_gives_the_logits_of_its_pieces_alone(kind: str, tmp_path: Path) -> None:
    register()
    model = (tiny.build_model(tmp_path) if kind == "grouped heads" else mistral()).eval()
    rows = [torch.randint(3, 448, (length,), generator=torch.Generator().manual_seed(length)) for length in LENGTHS]
    with torch.no_grad():
        alone = torch.cat([model(row[None]).logits[0] for row in rows])
        model.set_attn_implementation(SEGMENTED)
        packed = model(**collated(rows), use_cache=False).logits[0]
    assert torch.allclose(alone, packed, atol=2e-5)
    assert alone.std() > 0.01, "logits that are all alike would prove nothing"


def test_gradients_are_those_of_the_pieces_alone(tmp_path: Path) -> None:
    register()
    model = tiny.build_model(tmp_path)
    rows = [torch.arange(3, 3 + length) for length in LENGTHS]
    sum(model(row[None]).logits.square().sum() for row in rows).backward()
    alone = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.set_attn_implementation(SEGMENTED)
    model(**collated(rows), use_cache=False).logits.square().sum().backward()
    for parameter, expected in zip(model.parameters(), alone, strict=True):
        assert torch.allclose(parameter.grad, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_models_with_other_layers_are_padded_instead(tmp_path: Path) -> None:
    model = tiny.build_model(tmp_path)
    assert is_segmentable(model)
    model.config.layer_types = ["linear_attention", "full_attention"]
    assert not is_segmentable(model)
