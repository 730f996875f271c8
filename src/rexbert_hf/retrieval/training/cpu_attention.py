"""Attention in float32 inside a bfloat16 forward pass on CPU.

torch's CPU kernel for the backward pass of attention takes eight times as long in bfloat16 as in float32 on short
texts (measured with MiniLM on titles: 1.85 s of a step of 3.4 s, .19 s in float32), so that autocast gains nothing. The
matrix products around it, where bfloat16 pays, stay as they are. RexBERT's own attention does the same by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sdpa_float32"


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    mask = attention_mask
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast(query.device.type, enabled=False):
        out, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)
    return out.to(query.dtype), None


def use_float32_attention(model: nn.Module) -> int:
    """Let the stock encoders of a model attend in float32; RexBERT's are left as they are.

    Args:
        model: any; encoders in it that run torch's sdpa kernel are changed in place.

    Returns:
        How many were changed.

    Example:
        >>> use_float32_attention(nn.Linear(2, 2))
        0
    """
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    changed = 0
    for module in model.modules():
        config = getattr(module, "config", None)
        stock = isinstance(module, PreTrainedModel) and type(module).__module__.startswith("transformers.")
        if stock and getattr(config, "_attn_implementation", None) == "sdpa":
            assert isinstance(module, PreTrainedModel)
            module.set_attn_implementation(NAME)
            changed += 1
    return changed
