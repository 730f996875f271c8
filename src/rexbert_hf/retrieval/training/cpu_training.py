"""What makes a training step of a stock encoder slow on CPU, and the same step without it.

Four things, the first three of which `benchmarks/finetune_step.py` measures together with MiniLM on queries and titles:

- Attention in bfloat16: torch's kernel for its backward pass takes eight times as long as in float32 on short texts
  (1.85 s of a step of 3.4 s, .19 s in float32), so that autocast gains nothing. The matrix products around it, where
  bfloat16 pays, stay as they are. RexBERT's own attention does the same by itself.
- Dropout: torch draws each number of a mask by itself and on one thread. One draw of 64 bits gives eight numbers here,
  so that a mask costs a fifth.
- Embeddings: each block of a batch makes a gradient of the whole vocabulary, nearly all of it zeros that are written,
  added up and thrown away. Here blocks give the rows that they have, and the batch makes the gradient once.
- Linear layers in float32 on AMD's processors since Zen 5: see `rexbert_hf.models.products_rexbert`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from rexbert_hf.models import use_onednn

NAME = "sdpa_float32"

LARGE = 2**20
"""Embeddings of so many numbers and more get sparse gradients; for small ones a dense gradient costs less."""


def prepare_for_cpu(model: nn.Module, bf16: bool, ranks: int = 1) -> None:
    """Make the training steps of a model on CPU faster; what they compute stays the same up to rounding.

    Args:
        model: any; changed in place. On another device it is left as it is.
        bf16: whether steps run under bfloat16 autocast.
        ranks: processes that train together; gradients of several are summed densely.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return
    if bf16:
        use_float32_attention(model)
    use_byte_dropout(model)
    use_onednn(model)
    if ranks == 1:
        use_sparse_gradients(model)


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


class ByteDropout(nn.Dropout):
    """`nn.Dropout` on CPU with its rate rounded to 256ths; on other devices and in evaluation it is `nn.Dropout`.

    What survives is divided by the share that survives, so the expectation is exact.

    Example:
        >>> dropped = ByteDropout(0.5)(torch.ones(8, 16))
        >>> sorted(set(dropped.flatten().tolist()))
        [0.0, 2.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input with a share of its numbers at 0 and the others scaled, in its shape and type."""
        dropped = round(self.p * 256)
        if not self.training or input.device.type != "cpu" or self.inplace or not 0 < dropped < 256:
            return super().forward(input)
        draws = torch.empty(-(-input.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.uint8)[: input.numel()].view(input.shape) >= dropped
        # In the input's type: a product of two types takes torch's slow path, forward and backward.
        return input * keep.to(input.dtype).mul_(256 / (256 - dropped))


def use_byte_dropout(model: nn.Module) -> int:
    """Let a model draw its dropout by bytes.

    Args:
        model: any; each `nn.Dropout` in it is changed in place. A rate below 1/512 is drawn as before.

    Returns:
        How many were changed.

    Example:
        >>> use_byte_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
        1
    """
    found = [module for module in model.modules() if type(module) is nn.Dropout]
    for module in found:
        module.__class__ = ByteDropout
    return len(found)


def use_sparse_gradients(model: nn.Module) -> int:
    """Let large embeddings gather the gradient of one backward pass as rows; it is dense when the pass ends.

    Args:
        model: any; its `nn.Embedding`s of `LARGE` numbers and more are changed in place.

    Returns:
        How many were changed.

    Example:
        >>> use_sparse_gradients(nn.Embedding(100, 8))
        0
    """
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.weight.numel() >= LARGE and not module.sparse
    ]
    for module in found:
        module.sparse = True
        module.weight.register_post_accumulate_grad_hook(_make_dense)
    return len(found)


def _make_dense(weight: Tensor) -> None:
    # Clipping, the norm in the log and the optimizer know dense gradients only.
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()
