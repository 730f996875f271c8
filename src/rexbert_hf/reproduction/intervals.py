"""Paired differences over seeds, their t interval, and the verdict on a claim.

Rows share seeds, data order and evaluation masks, so the difference is taken seed by seed: what a seed does to all
rows alike drops out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"


@dataclass(frozen=True)
class Difference:
    """Mean difference of paired values with its confidence interval.

    Attributes:
        values: one difference a pair.
        mean: their mean.
        low: lower end of the interval; minus infinity for a single pair.
        high: upper end.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float


def t_probability(t: float, degrees: int) -> float:
    """P(|T| <= t) of Student's t with whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).

    Args:
        t: at least 0.
        degrees: degrees of freedom.

    Example:
        >>> round(t_probability(12.706, 1), 4), round(t_probability(4.303, 2), 4), round(t_probability(3.182, 3), 4)
        (0.95, 0.95, 0.95)
    """
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= k / (k + 1) * cosine**2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def t_quantile(confidence: float, degrees: int) -> float:
    """The t for which P(|T| <= t) is `confidence`.

    Args:
        confidence: in (0, 1).
        degrees: degrees of freedom, at least 1.

    Example:
        >>> [round(t_quantile(0.95, degrees), 3) for degrees in (1, 2, 4, 9)]
        [12.706, 4.303, 2.776, 2.262]
    """
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, degrees) < confidence else (low, middle)
    return high


def paired_difference(better: Sequence[float], than: Sequence[float], confidence: float = 0.95) -> Difference:
    """Difference of two rows, seed by seed.

    Args:
        better: values of one row, a seed each.
        than: values of the other, in the same order of seeds.
        confidence: of the interval.

    Raises:
        ValueError: if there is no pair, or the lengths differ.

    Example:
        >>> found = paired_difference([0.3, 0.32, 0.31], [0.2, 0.2, 0.2])
        >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4)
        (0.11, 0.0852, 0.1348)
    """
    if not better:
        raise ValueError("no seed has both rows")
    values = tuple(a - b for a, b in zip(better, than, strict=True))
    mean = fmean(values)
    if len(values) == 1:
        return Difference(values, mean, -math.inf, math.inf)
    reach = t_quantile(confidence, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Difference(values, mean, mean - reach, mean + reach)


def verdict(difference: Difference, at_least: float = 0.0) -> str:
    """Say whether the whole interval lies above the bound, below it, or around it.

    Args:
        difference: of the claim's rows.
        at_least: the bound.

    Example:
        >>> verdict(paired_difference([0.3, 0.32, 0.31], [0.2, 0.2, 0.2])), verdict(paired_difference([1.0], [0.0]))
        ('held', 'undecided')
    """
    if difference.low > at_least:
        return HELD
    return NOT_HELD if difference.high < at_least else UNDECIDED
