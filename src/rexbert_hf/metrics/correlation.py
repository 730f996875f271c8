"""Pearson's and Spearman's correlation, as scipy computes them; NaN where one side is constant."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's linear correlation; NaN for fewer than two values or a constant side.

    Args:
        x: one side, `[n]`.
        y: the other.

    Raises:
        ValueError: if the lengths differ or a value is not finite.

    Example:
        >>> round(pearson([1, 2, 3], [2, 4, 7]), 6)
        0.993399
    """
    a, b = _checked(x, y)
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(np.clip(a @ b, -1.0, 1.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank.

    Args:
        x: one side, `[n]`.
        y: the other.

    Raises:
        ValueError: if the lengths differ or a value is not finite.

    Example:
        >>> round(spearman([1, 2, 3, 4], [1, 10, 100, 100]), 6), spearman([1, 2], [3, 3])
        (0.948683, nan)
    """
    a, b = _checked(x, y)
    return pearson(average_ranks(a), average_ranks(b))


def average_ranks(values: ArrayLike) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs; float64 `[n]`.

    Args:
        values: `[n]`.

    Example:
        >>> average_ranks([30, 10, 30, 20]).tolist()
        [3.5, 1.0, 3.5, 2.0]
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2.0)[place]
    return ranks


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values on one side and {len(b)} on the other: give pairs")
    bad = np.flatnonzero(~(np.isfinite(a) & np.isfinite(b)))
    if len(bad):
        raise ValueError(f"row {bad[0]}: {a[bad[0]]} and {b[bad[0]]} are not both finite numbers")
    return a, b
