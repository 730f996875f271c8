"""Out of memory: whether an error means that, and which keys of the recipe take less of it.

Libraries say it in many ways, and none of them names a key.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

_SAYS = re.compile(
    r"out of memory|(can't|cannot|can not|unable to) allocate|not enough memory|alloc_failed|"
    r"DataLoader worker.*(killed by signal: Killed|Bus error)",
    re.IGNORECASE | re.DOTALL,
)
_LOWER = ("micro_batch_tokens", "batch_size", "block_size", "num_workers")
_SET = ("gradient_checkpointing",)


class OutOfMemoryToldError(MemoryError):
    """Want of memory that is told already, with folder and keys."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is want of memory: of a GPU, of the machine, or a worker that the system killed for it.

    Args:
        error: any.

    Example:
        >>> is_out_of_memory(RuntimeError("CUDA out of memory: 2 GiB")), is_out_of_memory(ValueError())
        (True, False)
    """
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and bool(_SAYS.search(str(error))))


def what_takes_less(settings: Any) -> str:
    """A clause that names the keys of a recipe on which its memory depends.

    Args:
        settings: the recipe; keys within lists and mappings are not named.

    Example:
        >>> from types import SimpleNamespace
        >>> what_takes_less(SimpleNamespace())
        'work on less at a time'
    """
    keys = list(_keys(settings))
    lower = [key for name in _LOWER for key in keys if key.split(".")[-1] == name]
    switches = [key for name in _SET for key in keys if key.split(".")[-1] == name]
    parts = ([f"lower {' or '.join(lower)}"] if lower else []) + [f"set {key}" for key in switches]
    return ", or ".join(parts) or "work on less at a time"


def _keys(settings: Any, above: str = "") -> Iterator[str]:
    """Dotted keys of a tree of dataclasses."""
    if dataclasses.is_dataclass(settings):
        for one in dataclasses.fields(settings):
            yield above + one.name
            yield from _keys(getattr(settings, one.name), f"{above}{one.name}.")
