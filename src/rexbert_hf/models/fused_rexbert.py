"""Functions made of many small kernels, which a compiler makes one of where it is asked to.

On an accelerator such a function is bound by memory traffic and by launches; fused it reads and writes each element
once. They stay plain until `fuse` is called: compiling takes seconds, and needs Triton or a C++ compiler.

Travels to the Hub as remote code: imports torch only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_COMPILED: dict[str, Callable[..., Any]] = {}
_FUSABLE: dict[str, Callable[..., Any]] = {}


def fusable(function: FunctionT) -> FunctionT:
    """A function of tensors that `fuse` may compile, with free shapes.

    Args:
        function: without side effects but on its arguments; of a module's top level.
    """
    name = function.__qualname__
    _FUSABLE[name] = function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = function if torch.compiler.is_compiling() else _COMPILED.get(name, function)
        return chosen(*args, **kwargs)

    return call  # type: ignore[return-value]


def fuse(on: bool = True, backend: str = "inductor") -> tuple[str, ...]:
    """Compile the functions at their next call, or go back to the plain ones.

    Args:
        on: False undoes it.
        backend: of torch.compile; "aot_eager" needs no compiler and makes no kernels, for tests.

    Returns:
        Their names.
    """
    _COMPILED.clear()
    if on:
        compiled = {n: torch.compile(function, dynamic=True, backend=backend) for n, function in _FUSABLE.items()}
        _COMPILED.update(compiled)
    return tuple(_FUSABLE)


def is_fused() -> bool:
    """Whether `fuse` is on, and this call is not itself being compiled."""
    return bool(_COMPILED) and not torch.compiler.is_compiling()


@fusable
def sum_and_norm(
    hidden: torch.Tensor,
    added: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A residual sum and its layer norm, the latter in the dtype of the product that reads it.

    Args:
        hidden: `[T, H]`.
        added: `[T, H]`, in its own dtype.
        weight: `[H]` of the norm.
        bias: `[H]` or None.
        eps: of the norm.
        dtype: of the normed states.

    Returns:
        The sum `[T, H]`, and its norm `[T, H]` in `dtype`.
    """
    hidden = hidden + added
    return hidden, F.layer_norm(hidden, hidden.shape[-1:], weight, bias, eps).to(dtype)


@fusable
def softmax_parts(
    logits: torch.Tensor, bias: torch.Tensor | None, own: torch.Tensor, return_ranks: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What a softmax over whole rows is made of; `logits` `[R, V]` are written over where nothing is compiled.

    Args:
        logits: in the dtype of the product; minus infinity at each row's label.
        bias: `[V]` in the dtype to sum in, or None.
        own: `[R]`, the label's logit with its bias, at least float32.
        return_ranks: whether to count the others that are not below each label.

    Returns:
        Exponentials of the logits less their row's peak, in the dtype of `logits`; their sums without the label's, the
        shifted logit of the label and the highest of the others, `[R]` in the dtype of `own`; the ranks `[R]` or None.
    """
    # Compiled for a GPU, what is written over an argument is written to a buffer of its own first, and copied.
    compiled = torch.compiler.is_compiling()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=compiled)
    if bias is not None:
        wide = wide.add_(bias)
    highest = wide.amax(1)
    peak = torch.maximum(highest, own)
    wide = wide.sub_(peak[:, None])
    target, last = own - peak, wide.shape[1] - 1
    # The label's own place is below it, where it is a number.
    ranks = (last + 1 - (wide < target[:, None]).sum(1)).clamp_max(last) if return_ranks else None
    wide = wide.exp_()
    others = wide.sum(1)
    part = wide.to(logits.dtype) if compiled or wide.dtype == logits.dtype else logits.copy_(wide)
    return part, others, target, highest - peak, ranks
