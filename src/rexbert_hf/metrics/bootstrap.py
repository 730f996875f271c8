"""Paired bootstrap over test examples, and Holm's correction for many comparisons.

Resample b draws the same rows for every system, because what is drawn depends on (seed, n) only: so differences are
paired however many systems there are, and whether or not they are resampled in one call. A score that depends on column
sums of per-example statistics needs no loop over resamples: drawn counts times statistics is one matrix product.

Examples that belong together (questions about one review, pairs of one query) are no independent draws: with `groups`,
whole groups are drawn, as many as there are (the cluster bootstrap). Rows drawn one by one would make differences look
more certain than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_BLOCK_DRAWS = 1 << 21
"""Draws held at once: 16 MiB of row numbers."""


@dataclass(frozen=True)
class Difference:
    """How far one system is from another.

    Attributes:
        value: of the first minus the second, on the examples themselves.
        low: end of the percentile interval over resamples.
        high: the other end.
        p_value: two-sided, of the hypothesis that there is no difference.
    """

    value: float
    low: float
    high: float
    p_value: float


def resample_sums(
    examples: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, groups: np.ndarray | None = None
) -> np.ndarray:
    """Column sums of rows drawn with replacement, float64 `[B, k]`.

    With groups the number of rows differs between resamples: put a column of ones beside the statistics to have it.

    Args:
        examples: statistics of each example, `[n, k]`; put several systems side by side to share the draws.
        resamples: B.
        seed: of the draws.
        groups: what each example belongs to, `[n]`; None where each stands for itself.

    Raises:
        ValueError: if there is no example, or another number of groups than of examples.

    Example:
        >>> resample_sums(np.ones((5, 2)), resamples=3).tolist()
        [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]
        >>> resample_sums(np.ones((5, 1)), resamples=4, groups=np.array([0, 0, 0, 1, 1])).ravel().tolist()
        [5.0, 6.0, 5.0, 5.0]
    """
    values = np.asarray(examples, dtype=np.float64)
    if groups is not None:
        numbers, count = _numbered(groups, len(values))
        sums_of = np.zeros((count, values.shape[1]))
        np.add.at(sums_of, numbers, values)
        values = sums_of
    n = len(values)
    sums = np.empty((resamples, values.shape[1]))
    start = 0
    for rows in _drawn(n, resamples, seed):
        places = rows + n * np.arange(len(rows))[:, None]
        counts = np.bincount(places.ravel(), minlength=n * len(rows)).reshape(len(rows), n)
        sums[start : start + len(rows)] = counts @ values
        start += len(rows)
    return sums


def resample_scores(
    examples: np.ndarray,
    score: Callable[[np.ndarray], float],
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """A score of rows drawn with replacement, float64 `[B]`: for scores that are no function of column sums.

    Args:
        examples: statistics of each example, `[n, ...]`.
        score: of some of them.
        resamples: B.
        seed: of the draws: the same rows as `resample_sums` draws with it.
        groups: what each example belongs to, `[n]`; None where each stands for itself.

    Raises:
        ValueError: if there is no example, or another number of groups than of examples.

    Example:
        >>> resample_scores(np.full((4, 1), 2.0), lambda rows: float(np.median(rows)), resamples=2).tolist()
        [2.0, 2.0]
    """
    values = np.asarray(examples, dtype=np.float64)
    if groups is None:
        return np.array([score(values[row]) for rows in _drawn(len(values), resamples, seed) for row in rows])
    numbers, count = _numbered(groups, len(values))
    order, sizes = np.argsort(numbers, kind="stable"), np.bincount(numbers, minlength=count)
    members = np.split(order, np.cumsum(sizes)[:-1])
    drawn = (row for rows in _drawn(count, resamples, seed) for row in rows)
    return np.array([score(values[np.concatenate([members[group] for group in row])]) for row in drawn])


def _numbered(groups: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Numbers of the groups in the order in which they first come, so that groups of one are the rows themselves."""
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} examples: one each is due")
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(len(first))
    return place[numbers.reshape(-1)], len(first)


def _drawn(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers `[b, n]` of block after block of resamples."""
    if n < 1:
        raise ValueError("there is no example to resample: the test set is empty")
    rng = np.random.default_rng([seed, n])
    block = max(1, _BLOCK_DRAWS // n)
    for start in range(0, resamples, block):
        yield rng.integers(0, n, size=(min(block, resamples - start), n))


def paired_difference(value: float, first: np.ndarray, second: np.ndarray, level: float = 0.95) -> Difference:
    """The difference of two systems from their scores on the same resamples.

    The p-value is the share of resamples whose difference is as far from the measured one as that is from 0 (the
    bootstrap distribution moved to where the hypothesis has it), with one added to both counts, so it is never 0.

    Args:
        value: difference on the examples themselves.
        first: scores of the first system, `[B]`.
        second: of the second, on the same resamples.
        level: of the interval.

    Raises:
        ValueError: if the numbers of resamples differ or are 0.

    Example:
        >>> found = paired_difference(0.5, np.array([0.4, 0.6, 0.5]), np.zeros(3))
        >>> found.value, round(found.p_value, 2)
        (0.5, 0.25)
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"resamples do not belong together: {first.shape} and {second.shape}")
    drawn = first - second
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    # Rounding must not turn "equally far" into "nearer".
    as_far = np.abs(drawn - value) >= abs(value) * (1 - 1e-12)
    return Difference(value, float(low), float(high), (1 + int(as_far.sum())) / (1 + len(drawn)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values of a family of tests (Holm, 1979): below alpha means real at that level in the whole family.

    Args:
        p_values: one a test.

    Raises:
        ValueError: for a number that is no probability.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03, 0.005])).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a p-value lies between 0 and 1, and NaN does not")
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted
