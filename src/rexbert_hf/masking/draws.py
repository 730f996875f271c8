"""Bulk random draws for the collators: 32 raw bits a draw, compared with an integer threshold.

A float draw costs two to three times as much and decides nothing more: a probability is kept to 2 ** -32. The stream
is the generator's own raw output, so selections do not change with the numpy version.
"""

from __future__ import annotations

import numpy as np

_ONE = 2.0**32


def uniform_bits(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` uniform 32-bit integers, two from each raw 64-bit output.

    Example:
        >>> bits = uniform_bits(np.random.Generator(np.random.SFC64(0)), 3)
        >>> bits.dtype, bits.shape
        (dtype('uint32'), (3,))
    """
    raw = rng.bit_generator.random_raw((count + 1) // 2)
    return raw.view(np.uint32)[:count]


def open_uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` numbers strictly between 0 and 1, float64, so that their logarithm is finite.

    Example:
        >>> draws = open_uniform(np.random.Generator(np.random.SFC64(0)), 1000)
        >>> bool((0 < draws).all() and (draws < 1).all())
        True
    """
    return (uniform_bits(rng, count) + 0.5) / _ONE


def threshold(probability: float) -> int:
    """Number of the 2 ** 32 values of a draw that lie below `probability`.

    Example:
        >>> threshold(0.25) == 2**30, threshold(1.0) == 2**32
        (True, True)
    """
    return int(probability * _ONE)


def bernoulli(rng: np.random.Generator, probability: float | np.ndarray, count: int) -> np.ndarray:
    """Draw `count` booleans, each True with its probability.

    A scalar and an array filled with it give the same booleans from the same generator state.

    Args:
        rng: the generator; it advances by `(count + 1) // 2` raw outputs.
        probability: one for all, or one a draw (float64 `[count]`, at most 1).
        count: number of draws.

    Example:
        >>> rng = np.random.Generator(np.random.SFC64(0))
        >>> bernoulli(rng, np.array([0.0, 1.0, 0.0]), 3).tolist()
        [False, True, False]
    """
    bits = uniform_bits(rng, count)
    if isinstance(probability, np.ndarray):
        # The largest threshold that fits is one draw in 2 ** 32 short of certainty.
        return bits < np.minimum(probability * _ONE, _ONE - 1).astype(np.uint32)
    return bits < threshold(probability)
