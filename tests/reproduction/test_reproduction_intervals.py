from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest

from rexbert_hf.reproduction.intervals import paired_difference, t_probability, t_quantile, verdict

# Two-sided quantiles from the usual printed table of Student's t.
TABLE = {
    (0.95, 1): 12.706,
    (0.95, 2): 4.303,
    (0.95, 3): 3.182,
    (0.95, 7): 2.365,
    (0.95, 10): 2.228,
    (0.90, 2): 2.920,
    (0.99, 4): 4.604,
    (0.99, 5): 4.032,
    (0.95, 30): 2.042,
}


@pytest.mark.parametrize(("key", "value"), TABLE.items())
def test_quantiles_are_those_of_the_printed_table(key, value):
    assert t_quantile(*key) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 6])
def test_probability_is_the_integral_of_the_density(degrees):
    scale = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
    steps = 20_000
    width = 2 * 1.7 / steps
    points = [-1.7 + (i + 0.5) * width for i in range(steps)]
    integral = sum(scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2) for x in points) * width
    assert t_probability(1.7, degrees) == pytest.approx(integral, abs=1e-6)


def test_differences_are_paired_by_seed():
    # Seeds differ by 20 points, rows by 1: unpaired, nothing could be said.
    found = paired_difference([0.11, 0.212, 0.309], [0.10, 0.20, 0.30])
    assert found.values == pytest.approx((0.01, 0.012, 0.009))
    reach = 4.3027 * stdev(found.values) / math.sqrt(3)
    assert found.mean == pytest.approx(fmean(found.values))
    assert (found.low, found.high) == pytest.approx((found.mean - reach, found.mean + reach), abs=1e-6)
    assert verdict(found) == "held"


@pytest.mark.parametrize(
    ("better", "at_least", "expected"),
    [
        ([0.30, 0.31, 0.32], 0.0, "held"),
        ([0.30, 0.31, 0.32], 0.2, "not held"),
        ([0.30, 0.31, 0.32], 0.1, "undecided"),
        ([0.10, 0.11, 0.12], 0.0, "not held"),
        ([0.10, 0.30, 0.35], 0.0, "undecided"),
        ([0.195, 0.194, 0.196], -0.01, "held"),
        ([0.2, 0.2, 0.2], 0.0, "undecided"),
    ],
)
def test_verdicts(better, at_least, expected):
    assert verdict(paired_difference(better, [0.2, 0.2, 0.2]), at_least) == expected


def test_one_seed_decides_nothing():
    found = paired_difference([1.0], [0.0])
    assert (found.mean, found.low, found.high) == (1.0, -math.inf, math.inf)
    assert verdict(found, -5.0) == verdict(found, 5.0) == "undecided"


def test_a_lower_confidence_is_a_narrower_interval():
    wide = paired_difference([0.3, 0.31, 0.36], [0.2, 0.2, 0.2], 0.95)
    narrow = paired_difference([0.3, 0.31, 0.36], [0.2, 0.2, 0.2], 0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_rows_of_different_seeds_are_refused():
    with pytest.raises(ValueError, match="zip"):
        paired_difference([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="no seed has both rows"):
        paired_difference([], [])
