"""What makes a step reproducible: generators seeded from its place in the run."""

from __future__ import annotations

import random

import numpy as np
import torch


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
