"""Figures of rankings in which scores are equal: their mean over all orders of what ties.

An order has to come from somewhere, and what the caller's lists happen to have (the best first, as often as not) is no
merit of a system. For sums over ranks (DCG, recall, shares) the mean over all orders is that of an average item at each
rank of a tie, which is scikit-learn's rule (McSherry and Najork 2008); the first hit has a formula of its own.
"""

from __future__ import annotations

import numpy as np


def tie_groups(scores: np.ndarray) -> np.ndarray:
    """Which ranks tie: equal numbers for equal scores, int64 `[Q, K]`; NaN ties with nothing.

    Args:
        scores: of each ranking, best first, `[Q, K]`.

    Example:
        >>> tie_groups(np.array([[0.9, 0.5, 0.5, np.nan, np.nan]])).tolist()
        [[0, 1, 1, 2, 3]]
    """
    scores = np.asarray(scores, dtype=np.float64)
    groups = np.zeros(scores.shape, dtype=np.int64)
    groups[:, 1:] = (scores[:, 1:] != scores[:, :-1]).cumsum(axis=1)
    return groups


def mean_over_ties(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each value replaced by the mean of those that it ties with; NaN counts for none and stays, float64 `[Q, K]`.

    Args:
        values: at each rank, `[Q, K]`.
        groups: of `tie_groups`, in the same order.

    Example:
        >>> mean_over_ties(np.array([[3.0, 2.0, 0.0, np.nan]]), np.array([[0, 1, 1, 1]])).tolist()
        [[3.0, 1.0, 1.0, nan]]
    """
    values = np.asarray(values, dtype=np.float64)
    numbers = groups + np.arange(len(groups))[:, None] * (groups.max(initial=0) + 1)
    known = ~np.isnan(values)
    sums = np.bincount(numbers[known], weights=values[known], minlength=numbers.max(initial=0) + 1)
    counts = np.bincount(numbers[known], minlength=len(sums))
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return np.where(known, means[numbers], np.nan)


def mrr_over_ties(hits: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """One over the rank of the first hit, 0 where none is among the first k: the mean over all orders of the ties.

    Args:
        hits: bool, `[Q, K]`.
        groups: of `tie_groups`, in the same order.
        k: depth.

    Example:
        >>> mrr_over_ties(np.array([[False, True], [False, True]]), np.array([[0, 0], [0, 1]]), k=2).tolist()
        [0.75, 0.5]
    """
    found = np.zeros(len(hits))
    for row, (hit, group) in enumerate(zip(hits, groups, strict=True)):
        if not hit.any():
            continue
        tied = np.flatnonzero(group == group[hit.argmax()])
        size, right = len(tied), int(hit[tied].sum())
        before = np.arange(size - right)  # others of the tie that come before its first hit, if it comes later
        chance = right / size * np.append(1.0, np.cumprod((size - right - before) / (size - 1.0 - before)))
        ranks = tied[0] + np.arange(len(chance))
        found[row] = (chance / (ranks + 1))[ranks < k].sum()
    return found
