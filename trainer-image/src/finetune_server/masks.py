"""The mask of a decoded token, which transformers would make of a dozen operations for every token of a batch."""

from typing import Any

import torch
from transformers import AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, sdpa_mask


def mask_of(
    *,
    q_length: int,
    kv_length: int,
    kv_offset: int = 0,
    mask_function: Any = causal_mask_function,  # noqa: ANN401 - transformers has no types
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **settings: Any,  # noqa: ANN401
) -> torch.Tensor | None:
    """What `sdpa` gets: (rows, 1, new tokens, all tokens), True where a token is looked at; None: everywhere.

    The last token may look at all before it, so that its mask is that of the padding.
    """
    is_last = q_length == 1 and mask_function is causal_mask_function and kv_offset == 0
    if is_last and attention_mask is not None and attention_mask.shape[-1] == kv_length:
        # Without a mask more kernels can be chosen from.
        return None if allow_is_causal_skip and attention_mask.all() else attention_mask[:, None, None]
    found: torch.Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        **settings,
    )
    return found


def use_short_masks() -> None:
    """Have all models of this process use it, by transformers' own means."""
    AttentionMaskInterface.register("sdpa", mask_of)
