"""The short mask of a decoded token, against transformers' own."""

from typing import Any

import pytest
import torch
from transformers.masking_utils import causal_mask_function, sdpa_mask, sliding_window_causal_mask_function

from finetune_server.masks import mask_of

PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]).bool()
FULL = torch.ones(3, 6).bool()


@pytest.mark.parametrize(
    ("padding", "settings"),
    [
        pytest.param(PADDED, {"q_length": 1, "q_offset": 5}, id="a token"),
        pytest.param(FULL, {"q_length": 1, "q_offset": 5}, id="a token of rows without padding"),
        pytest.param(FULL, {"q_length": 1, "q_offset": 5, "allow_is_causal_skip": False}, id="a mask is wanted"),
        pytest.param(PADDED, {"q_length": 6}, id="prompts"),
        pytest.param(PADDED, {"q_length": 2, "q_offset": 4}, id="two tokens"),
        pytest.param(None, {"q_length": 1, "q_offset": 5}, id="nothing said about padding"),
        pytest.param(PADDED[:, :4], {"q_length": 1, "q_offset": 3}, id="a cache with room"),
        pytest.param(
            PADDED,
            {"q_length": 1, "q_offset": 5, "mask_function": sliding_window_causal_mask_function(2)},
            id="sliding window",
        ),
    ],
)
def test_it_is_transformers_own(padding: torch.Tensor | None, settings: dict[str, Any]) -> None:
    given = {"batch_size": 3, "kv_length": 6, "mask_function": causal_mask_function, **settings}

    found, wanted = mask_of(attention_mask=padding, **given), sdpa_mask(attention_mask=padding, **given)

    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert found.equal(wanted)
