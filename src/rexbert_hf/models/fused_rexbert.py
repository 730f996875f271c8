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


def fuse(on: bool = True) -> tuple[str, ...]:
    """Compile the functions at their next call, or go back to the plain ones.

    Args:
        on: False undoes it.

    Returns:
        Their names.
    """
    _COMPILED.clear()
    if on:
        _COMPILED.update({name: torch.compile(function, dynamic=True) for name, function in _FUSABLE.items()})
    return tuple(_FUSABLE)
