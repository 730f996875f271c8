"""Retrieval metrics on arrays, one value a query: recall, nDCG, MRR, judged share, labels retrieved, sparse results.

A ranking is an integer matrix `[Q, K]` of product numbers, best first, -1 where nothing was retrieved. Judgements are
one `Judgements`; `grades` joins the two. An unjudged product has the grade NaN: a metric counts it as not relevant,
`judged_at_k` says how often that happened, and `condense` takes it out of the list (Sakai 2007), so that a system is
not punished for products that nobody looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Judgements:
    """Graded products of each query, query by query.

    Attributes:
        offsets: query q owns the entries `offsets[q]:offsets[q + 1]`; `[Q + 1]`.
        products: product numbers, rising within a query; `[J]`.
        grades: the grade of each, in the source's own scale; `[J]`.

    Example:
        >>> judged = Judgements.from_pairs([1, 0, 1], [7, 3, 2], [1.0, 2.0, 3.0], num_queries=2)
        >>> judged.offsets.tolist(), judged.products.tolist(), judged.grades.tolist()
        ([0, 1, 3], [3, 2, 7], [2.0, 3.0, 1.0])
    """

    offsets: np.ndarray
    products: np.ndarray
    grades: np.ndarray

    @classmethod
    def from_pairs(
        cls,
        queries: Sequence[int] | np.ndarray,
        products: Sequence[int] | np.ndarray,
        grades: Sequence[float] | np.ndarray,
        num_queries: int,
    ) -> Judgements:
        """Sort judged pairs; of a pair that was judged twice the highest grade stays.

        Args:
            queries: query number of each pair.
            products: its product number.
            grades: its grade.
            num_queries: Q; queries without a pair own nothing.

        Raises:
            ValueError: if the lists differ in length, or a number is out of range or not finite.
        """
        query, product = np.asarray(queries, dtype=np.int64), np.asarray(products, dtype=np.int64)
        grade = np.asarray(grades, dtype=np.float64)
        if not len(query) == len(product) == len(grade):
            raise ValueError(
                f"{len(query)} queries, {len(product)} products, {len(grade)} grades: give one each a pair"
            )
        if len(query) and (query.min() < 0 or query.max() >= num_queries or product.min() < 0):
            raise ValueError(f"query numbers must lie in 0..{num_queries - 1} and product numbers be at least 0")
        if not np.isfinite(grade).all():
            raise ValueError("a grade is NaN or infinite: leave the pair out instead")
        order = np.lexsort((-grade, product, query))
        query, product, grade = query[order], product[order], grade[order]
        first = np.ones(len(query), dtype=bool)
        first[1:] = (query[1:] != query[:-1]) | (product[1:] != product[:-1])
        query, product, grade = query[first], product[first], grade[first]
        return cls(np.searchsorted(query, np.arange(num_queries + 1)), product, grade)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def count(self, least: float) -> np.ndarray:
        """Products of each query with at least this grade, int64 `[Q]`."""
        return np.bincount(self._rows()[self.grades >= least], minlength=len(self))

    def select(self, queries: np.ndarray) -> Judgements:
        """The judgements of some queries, renumbered in the given order.

        Args:
            queries: query numbers, or a mask.
        """
        chosen = np.flatnonzero(queries) if np.asarray(queries).dtype == bool else np.asarray(queries)
        sizes = np.diff(self.offsets)[chosen]
        entries = np.repeat(self.offsets[chosen] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        return Judgements(np.concatenate([[0], np.cumsum(sizes)]), self.products[entries], self.grades[entries])

    def _rows(self) -> np.ndarray:
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def grades_of(ranked: np.ndarray, judged: Judgements) -> np.ndarray:
    """The grade of every retrieved product, NaN where it was not judged; float64 `[Q, K]`.

    Args:
        ranked: product numbers, `[Q, K]`.
        judged: of the same queries.

    Raises:
        ValueError: if the numbers of queries differ.

    Example:
        >>> judged = Judgements.from_pairs([0, 0], [3, 5], [1.0, 3.0], 1)
        >>> grades_of(np.array([[5, 4, 3, -1]]), judged).tolist()
        [[3.0, nan, 1.0, nan]]
    """
    ranked = np.asarray(ranked, dtype=np.int64)
    if len(ranked) != len(judged):
        raise ValueError(f"{len(ranked)} rankings but judgements of {len(judged)} queries: give one ranking a query")
    width = int(max(ranked.max(initial=0), judged.products.max(initial=0))) + 1
    keys = judged._rows() * width + judged.products
    wanted = np.arange(len(ranked))[:, None] * width + ranked
    if not len(keys):
        return np.full(ranked.shape, np.nan)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[place] == wanted) & (ranked >= 0), judged.grades[place], np.nan)


def condense(grades: np.ndarray) -> np.ndarray:
    """Take unjudged products out of the rankings: what was judged moves up, NaN fills the end.

    Args:
        grades: `[Q, K]`, as `grades_of` gives them; judged products beyond K stay lost, so retrieve deeply.

    Example:
        >>> condense(np.array([[np.nan, 2.0, np.nan, 1.0]])).tolist()
        [[2.0, 1.0, nan, nan]]
    """
    return np.take_along_axis(grades, np.argsort(np.isnan(grades), axis=1, kind="stable"), axis=1)


def recall_at_k(grades: np.ndarray, relevant: np.ndarray, k: int, least: float = 1.0) -> np.ndarray:
    """Share of a query's relevant products among its first k; NaN for a query without any.

    Args:
        grades: of the ranking, `[Q, K]`.
        relevant: relevant products that each query has, `[Q]` (`Judgements.count`).
        k: depth.
        least: a product is relevant from this grade on.

    Example:
        >>> recall_at_k(np.array([[1.0, np.nan, 1.0]]), np.array([4]), k=3).tolist()
        [0.5]
    """
    found = (grades[:, :k] >= least).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(relevant > 0, found / relevant, np.nan)


def mrr_at_k(grades: np.ndarray, k: int, least: float = 1.0) -> np.ndarray:
    """One over the rank of the first relevant product, 0 where none is among the first k.

    Args:
        grades: of the ranking, `[Q, K]`.
        k: depth.
        least: a product is relevant from this grade on.

    Example:
        >>> mrr_at_k(np.array([[np.nan, 1.0, 1.0], [0.0, 0.0, 0.0]]), k=3).tolist()
        [0.5, 0.0]
    """
    hit = grades[:, :k] >= least
    return np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1), 0.0)


def ndcg_at_k(gains: np.ndarray, judged_gains: Judgements, k: int) -> np.ndarray:
    """Discounted cumulative gain over that of the best possible order; NaN for a query whose gains are all 0.

    The gain of a grade is the caller's to say: apply it to the grades of both (2^(grade - 1) - 1, 1 / .1 / .01 / 0 for
    E / S / C / I, ...). The discount is log2(rank + 1).

    Args:
        gains: of the ranking, `[Q, K]`, NaN counts as 0.
        judged_gains: judgements whose grades are gains.
        k: depth.

    Example:
        >>> judged = Judgements.from_pairs([0, 0], [3, 5], [1.0, 3.0], 1)
        >>> ndcg_at_k(grades_of(np.array([[5, 3]]), judged), judged, k=10).tolist()
        [1.0]
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    top = np.nan_to_num(gains[:, :k])
    found = top @ discount[: top.shape[1]]
    rows = judged_gains._rows()
    order = np.lexsort((-judged_gains.grades, rows))
    rank = np.arange(len(order)) - judged_gains.offsets[rows[order]]
    worth = np.where(rank < k, judged_gains.grades[order] * discount[np.minimum(rank, k - 1)], 0.0)
    best = np.bincount(rows[order], weights=worth, minlength=len(judged_gains))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best > 0, found / best, np.nan)


def judged_at_k(grades: np.ndarray, ranked: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k retrieved products that were judged; NaN where nothing was retrieved.

    Args:
        grades: of the ranking, `[Q, K]`.
        ranked: the ranking itself, which tells "nothing there" from "not judged".
        k: depth.

    Example:
        >>> judged_at_k(np.array([[1.0, np.nan, np.nan]]), np.array([[4, 2, -1]]), k=3).tolist()
        [0.5]
    """
    retrieved = (np.asarray(ranked)[:, :k] >= 0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(retrieved > 0, (~np.isnan(grades[:, :k])).sum(axis=1) / retrieved, np.nan)


def label_shares(
    grades: np.ndarray, ranked: np.ndarray, k: int, exact: float, substitute: float, judged_only: bool = False
) -> dict[str, np.ndarray]:
    """E@k, S@k, O@k and E+S@k of each query: the shares of exact, substitute and other products among the first k.

    Args:
        grades: of the ranking, `[Q, K]`.
        ranked: the ranking itself.
        k: depth; 100 in the paper's table 2, 16 in its table 3.
        exact: least grade of an exact match.
        substitute: least grade of a substitute.
        judged_only: shares of the judged products; else unjudged ones count as other.

    Example:
        >>> shares = label_shares(np.array([[3.0, 2.0, np.nan, 1.0]]), np.array([[4, 2, 9, 7]]), 4, 2.5, 1.5)
        >>> {name: float(value[0]) for name, value in shares.items()}
        {'E': 0.25, 'S': 0.25, 'O': 0.5, 'E+S': 0.5}
    """
    top, there = grades[:, :k], np.asarray(ranked)[:, :k] >= 0
    counted = (~np.isnan(top) if judged_only else there).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        exact_share = np.where(counted > 0, (top >= exact).sum(axis=1) / counted, np.nan)
        both = np.where(counted > 0, (top >= substitute).sum(axis=1) / counted, np.nan)
    return {"E": exact_share, "S": both - exact_share, "O": 1.0 - both, "E+S": both}


def sparse_results(scores: np.ndarray, threshold: float, fewest: int = 16) -> np.ndarray:
    """Whether a query has fewer than `fewest` products above a score (the paper's SR); bool `[Q]`.

    Args:
        scores: of the retrieved products, `[Q, K]` with K >= `fewest`; NaN or -inf where nothing was retrieved.
        threshold: products at this score or above are shown.
        fewest: results of a full page.

    Raises:
        ValueError: if fewer than `fewest` products a query were retrieved: every query would seem sparse.

    Example:
        >>> sparse_results(np.array([[0.9, 0.8], [0.9, 0.1]]), threshold=0.5, fewest=2).tolist()
        [False, True]
    """
    if scores.shape[1] < fewest:
        raise ValueError(f"{scores.shape[1]} scores a query cannot tell whether there are {fewest}: retrieve more")
    return (scores >= threshold).sum(axis=1) < fewest


def bootstrap_interval(
    values: np.ndarray, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over queries with its percentile interval, by drawing queries with replacement.

    Args:
        values: one a query; NaN (no such query) is left out.
        level: of the interval.
        samples: draws.
        seed: of the draws.

    Returns:
        Mean, low end, high end; NaN where no value is left.

    Example:
        >>> mean, low, high = bootstrap_interval(np.array([0.0, 1.0] * 50))
        >>> mean, low < 0.45 < 0.55 < high
        (0.5, True)
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    means = np.array([kept[rng.integers(0, len(kept), len(kept))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(kept.mean()), float(low), float(high)
