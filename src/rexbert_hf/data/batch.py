"""Batches that loader workers hand over by value.

torch passes each tensor of a worker's batch through shared memory of its own: a file, a descriptor sent over a socket
with a handshake, and a mapping, whatever the size. For batches of some hundred kilobytes that costs three times what
making them does, so they go through the pipe that carries the message anyway. It also needs no room in /dev/shm, which
containers keep small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Batch(dict[str, Any]):
    """A dict of a batch's tensors, made by a collator. In a stock `DataLoader` with workers it arrives as it left.

    Example:
        >>> import pickle
        >>> batch = Batch(input_ids=torch.tensor([[5, 6]]), max_length_q=2) | {"labels": torch.tensor([[-100, 6]])}
        >>> pickle.loads(pickle.dumps(batch))
        {'input_ids': tensor([[5, 6]]), 'max_length_q': 2, 'labels': tensor([[-100,    6]])}
    """

    def __or__(self, other: Any) -> Batch:  # type: ignore[override]
        return Batch({**self, **other})

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, ({name: _arrays(value) for name, value in self.items()},)


def _received(values: dict[str, Any]) -> Batch:
    return Batch({name: _tensors(value) for name, value in values.items()})


class _Sent:
    """An array that was a tensor; arrays that were none stay arrays."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        return _Sent, (self.array,)


def _arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        # What numpy does not know, or another device holds, goes torch's way.
        plain = value.device.type == "cpu" and value.layout == torch.strided and value.dtype != torch.bfloat16
        return _Sent(value.numpy()) if plain and not value.requires_grad else value
    if type(value) is dict:
        return {name: _arrays(inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_arrays(inner) for inner in value)
    return value


def _tensors(value: Any) -> Any:
    if isinstance(value, _Sent):
        return torch.from_numpy(value.array)
    if type(value) is dict:
        return {name: _tensors(inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_tensors(inner) for inner in value)
    return value
