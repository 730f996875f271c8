"""The faster of torch's two libraries for the linear layers of encoders that are not RexBERT's."""

from __future__ import annotations

from torch import Tensor, nn

from .encoder_rexbert import RexBertPreTrainedModel
from .products_rexbert import is_plain, linear, prefers_onednn


class OneDnnLinear(nn.Linear):
    """`nn.Linear` whose float32 products on CPU take the faster library (products_rexbert.py).

    Example:
        >>> OneDnnLinear(2, 3)
        Linear(in_features=2, out_features=3, bias=True)
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[..., K]` to `[..., N]`."""
        return linear(input, self.weight, self.bias)

    def _get_name(self) -> str:
        return nn.Linear.__name__


def use_onednn(model: nn.Module) -> int:
    """Let the linear layers of any encoder take the library that is the faster one here; RexBERT's do so by themselves.

    Args:
        model: any; its plain `nn.Linear`s are changed in place, where that gains anything.

    Returns:
        How many were changed: none where torch's own choice is the best.

    Example:
        >>> use_onednn(nn.Sequential(nn.Linear(2, 2))) in (0, 1)
        True
    """
    if not prefers_onednn():
        return 0
    own = {id(part) for one in model.modules() if isinstance(one, RexBertPreTrainedModel) for part in one.modules()}
    found = [layer for layer in model.modules() if id(layer) not in own and is_plain(layer)]
    for layer in found:
        layer.__class__ = OneDnnLinear
    return len(found)
