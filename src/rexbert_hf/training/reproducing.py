"""What makes a step reproducible: generators seeded from its place in the run, and its batch saved when it fails."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file


class NonFiniteLossError(FloatingPointError):
    """The loss or the gradient norm of a step is NaN or infinite; the weights were not changed by it."""


def seed_generators(seed: int, step: int, micro: int) -> None:
    """Seed Python's, NumPy's and torch's global generators from a place in the run.

    Args:
        seed: of the run.
        step: global step.
        micro: micro-batch within the step, over all ranks.

    Example:
        >>> seed_generators(1, 2, 3)
        >>> first = torch.rand(2)
        >>> seed_generators(1, 2, 3)
        >>> bool((first == torch.rand(2)).all())
        True
    """
    words = np.random.SeedSequence([seed, step, micro]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - the global generator is what third-party code may draw from
    torch.manual_seed(int(words[2]))


def save_batches(path: Path, batches: Mapping[int, Mapping[str, Any]], **metadata: int) -> None:
    """Write the tensors of a step's micro-batches, as `micro{number}.{name}`, for replay.

    Args:
        path: a safetensors file; its folder is made if needed.
        batches: micro-batches by number.
        **metadata: kept in the file's header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"micro{micro}.{name}": value.contiguous().cpu().clone()
        for micro, batch in batches.items()
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }
    save_file(tensors, path, metadata={key: str(value) for key, value in metadata.items()})
