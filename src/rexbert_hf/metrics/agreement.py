"""Shares with their uncertainty, and the agreement of two labellers over strata of different weight.

One decision worth knowing: a sample that takes the same number of documents from every stratum says nothing about the
whole until each stratum counts for what it is in the whole. So agreement and kappa are taken from a table whose strata
are weighted by their sizes; intervals are Wilson's on the effective sample size, and a bootstrap within strata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def wilson_interval(successes: float, total: float, confidence: float = 0.95) -> Interval:
    """Share of successes with Wilson's score interval, which stays in [0, 1] and is honest at 0 and 1.

    Args:
        successes: how many; not whole for weighted samples.
        total: of how many; 0 gives the interval [0, 1] around nan.
        confidence: in (0, 1).

    Raises:
        ValueError: if `successes` is not between 0 and `total`, or `confidence` not in (0, 1).

    Example:
        >>> found = wilson_interval(8, 10)
        >>> found.value, round(found.low, 4), round(found.high, 4)
        (0.8, 0.4902, 0.9433)
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is in (0, 1), got {confidence}")
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}: successes are between 0 and the total")
    if total == 0:
        return Interval(math.nan, 0.0, 1.0)
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    share = successes / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = math.sqrt(z2 * share * (1 - share) / total + z2 * z2 / (4 * total * total)) / (1 + z2 / total)
    # At 0 and 1 one end is the share itself; rounding must not put it outside.
    return Interval(share, min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach)))


def cohen_kappa(table: np.ndarray) -> float:
    """Cohen's kappa of a table of counts or weights, one labeller down and the other across.

    Args:
        table: `[L, L]`, not negative.

    Returns:
        1 for full agreement, 0 for that of chance; nan where chance alone agrees on everything, or for an empty table.

    Example:
        >>> round(cohen_kappa(np.array([[20, 5], [10, 15]])), 6)
        0.4
    """
    table = np.asarray(table, dtype=np.float64)
    return float(_kappas(table[None])[0])


def _kappas(tables: np.ndarray) -> np.ndarray:
    """Kappa of each of `[B, L, L]` tables."""
    totals = tables.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = tables / totals[:, None, None]
        observed = np.trace(shares, axis1=1, axis2=2)
        chance = (shares.sum(1) * shares.sum(2)).sum(1)
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two labellers agree.

    Attributes:
        pairs: documents that both labelled.
        agreement: share of equal labels, weighted by strata, with Wilson's interval.
        kappa: Cohen's kappa of the weighted table, with a bootstrap interval.
    """

    pairs: int
    agreement: Interval
    kappa: Interval


def stratified_agreement(
    tables: np.ndarray, sizes: np.ndarray, confidence: float = 0.95, draws: int = 2_000, seed: int = 0
) -> Agreement:
    """Agreement over a population that was sampled by strata.

    Args:
        tables: counts of the sample, `[H, L, L]`: a stratum each, first labeller down, second across.
        sizes: documents of each stratum in the population, `[H]`; strata without a sampled pair are left out.
        confidence: of the intervals.
        draws: of the bootstrap for kappa.
        seed: of the bootstrap.

    Raises:
        ValueError: if shapes differ or there is no pair at all.

    Example:
        >>> found = stratified_agreement(np.array([[[9, 1], [0, 0]], [[0, 0], [2, 8]]]), np.array([900, 100]))
        >>> found.pairs, round(found.agreement.value, 3)
        (20, 0.89)
    """
    tables, sizes = np.asarray(tables, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if tables.ndim != 3 or tables.shape[1] != tables.shape[2] or sizes.shape != tables.shape[:1]:
        raise ValueError(f"tables are [H, L, L] and sizes [H], got {tables.shape} and {sizes.shape}")
    counts = tables.sum((1, 2))
    tables, sizes, counts = tables[counts > 0], sizes[counts > 0], counts[counts > 0]
    if not len(tables):
        raise ValueError("there is no document that both labelled")
    weights = sizes / sizes.sum()
    share = float((weights * np.trace(tables, axis1=1, axis2=2) / counts).sum())
    effective = 1.0 / float((weights**2 / counts).sum())
    whole = (tables * (weights / counts)[:, None, None]).sum(0)
    share = min(share, 1.0)
    return Agreement(
        int(counts.sum()),
        wilson_interval(share * effective, effective, confidence),
        _kappa_interval(whole, tables, weights, confidence, draws, seed),
    )


def _kappa_interval(
    whole: np.ndarray, tables: np.ndarray, weights: np.ndarray, confidence: float, draws: int, seed: int
) -> Interval:
    """Percentiles over resampled strata."""
    generator, cells = np.random.default_rng(seed), tables.shape[1] ** 2
    drawn = np.zeros((draws, cells))
    for table, weight in zip(tables.reshape(-1, cells), weights, strict=True):
        count = table.sum()
        drawn += generator.multinomial(int(count), table / count, size=draws) * (weight / count)
    kappas = _kappas(drawn.reshape(draws, *tables.shape[1:]))
    value, kappas = cohen_kappa(whole), kappas[np.isfinite(kappas)]
    if not len(kappas) or not math.isfinite(value):
        return Interval(value, -1.0, 1.0)
    low, high = np.quantile(kappas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))
