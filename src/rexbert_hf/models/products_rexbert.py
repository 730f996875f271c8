"""Linear layers in float32 on CPU, by the faster of the two libraries that torch brings.

torch hands float32 products to MKL. On AMD's processors MKL leaves AVX-512 alone. From Zen 5 on, whose units are as
wide as its registers, oneDNN, which torch uses for bfloat16 and convolutions, takes about half the time
(`benchmarks/products.py`); Zen 4 does AVX-512 in two halves, so oneDNN gains a tenth at best there, and loses in small
steps. On Zen 4 and Intel's, and without AVX-512, on other devices, in other types, under autocast, compilation, export
or tracing, everything stays torch's own.
`torch.backends.mkldnn.flags(enabled=False)` turns it off.

Travels to the Hub as remote code: imports torch only.
"""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _python_dispatch

FEWEST_ROWS, FEWEST_COLUMNS = 64, 64
"""Smaller products gain nothing: what the call costs is as much as what it saves."""
ZEN_5 = 26
"""Family of AMD's processors; Zen 4 is of 25."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x @ weight.T + bias`, as `torch.nn.functional.linear`, up to rounding.

    Args:
        x: `[..., K]`.
        weight: `[N, K]`.
        bias: `[N]` or None.

    Returns:
        `[..., N]`.

    Example:
        >>> linear(torch.ones(2, 3), torch.ones(4, 3)).tolist()
        [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]
    """
    if torch.compiler.is_compiling() or not (prefers_onednn() and _suits(x, weight, bias)):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or _needs_grad(bias)):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def project(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`layer(x)`, of a linear layer that may have become something else: an adapter, a quantised form, hooks."""
    if not torch.compiler.is_compiling() and prefers_onednn() and is_plain(layer):
        assert isinstance(layer, nn.Linear)
        return linear(x, layer.weight, layer.bias)
    return layer(x)


def project_cut(layer: nn.Module, x: torch.Tensor, full: int) -> torch.Tensor:
    """`layer` of the first of its `full` inputs, as if the others were zero.

    A plain layer is sliced. Any other (see `project`) is called, with the zeros: an adapter is cut with its layer.

    Args:
        layer: from `[..., full]` to `[..., N]`.
        x: `[..., d]`, the first d inputs.
        full: inputs that the layer takes.

    Returns:
        `[..., N]`.
    """
    width = x.shape[-1]
    if width == full:
        return project(layer, x)
    if is_plain(layer):
        assert isinstance(layer, nn.Linear)
        return linear(x, layer.weight[:, :width], layer.bias)
    return layer(F.pad(x, (0, full - width)))


def is_plain(layer: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Whether a layer is only that kind: no adapter, quantised form, hook or offloading that its call would meet."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is kind and not any(hooks) and "forward" not in vars(layer)


def compute_dtype(x: torch.Tensor, device: torch.device | None = None) -> torch.dtype:
    """Dtype of a product with `x` on its or another device, autocast considered."""
    kind = (x.device if device is None else device).type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_transformed() -> bool:
    """Whether torch.func (grad, vmap, jvp) looks on, to which gradients written by hand are closed."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster here than what torch uses: an AMD processor of Zen 5 or later.

    It does not time the two: the same machine shall compute the same numbers each time.
    """
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    there = both and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512" and _amd_family() >= ZEN_5


def _amd_family(told_in: Path = Path("/proc/cpuinfo")) -> int:
    """Family of AMD's processor; 0 of another maker's, and where the system does not tell."""
    try:
        told = told_in.read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = platform.processor()  # of Windows: AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD
    family = re.search(r"\bfamily[\s:]+(\d+)", told, re.IGNORECASE)
    return int(family[1]) if family and "AuthenticAMD" in told else 0


def _needs_grad(bias: torch.Tensor | None) -> bool:
    return bias is not None and bias.requires_grad


def _suits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a product is large enough, and nobody is watching who knows torch's own operators only."""
    if torch.jit.is_tracing():
        return False
    rows, columns = weight.shape
    return (
        all(_is_float32(one) for one in (x, weight, bias) if one is not None)
        and (x.is_contiguous() or _is_dense(x))
        and _is_dense(weight)
        and x.shape[-1] == columns
        and (bias is None or bias.shape == (rows,))
        and x.numel() >= FEWEST_ROWS * columns
        and min(rows, columns) >= FEWEST_COLUMNS
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and _python_dispatch._get_current_dispatch_mode() is None
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
    )


def _is_dense(matrix: torch.Tensor) -> bool:
    """Whether a matrix lies by rows or by columns, with gaps between them at most."""
    return matrix.dim() == 2 and 1 in matrix.stride() and max(matrix.stride()) >= matrix.shape[matrix.stride().index(1)]


def _is_float32(x: torch.Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and type(x) in (torch.Tensor, nn.Parameter)


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, _packed(weight), bias, "none", [], "")
    return out


def _packed(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix without gaps between its rows or columns: for weights that have some oneDNN takes a thousand times."""
    return matrix.contiguous() if matrix.stride(1) == 1 else matrix.t().contiguous().t()


class _Linear(torch.autograd.Function):
    """`_product` with its gradients, which are products themselves and may be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        rows = grad.flatten(0, -2)
        for_x = _transposed(grad, weight) if ctx.needs_input_grad[0] else None
        # This order of the two has less to rearrange than its transpose.
        for_weight = _transposed(x.flatten(0, -2).t(), rows).t().contiguous() if ctx.needs_input_grad[1] else None
        return for_x, for_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


def _transposed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`x @ weight`."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return x @ weight  # a second derivative is asked for: rare, and torch's own
    return _product(x, weight.t(), None)
