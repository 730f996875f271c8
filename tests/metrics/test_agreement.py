"""Wilson's interval, kappa and the stratified estimate, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rexbert_hf.metrics.agreement import cohen_kappa, stratified_agreement, wilson_interval


@pytest.mark.parametrize(("successes", "total"), [(1, 7), (30, 200), (199, 200), (0.4, 3.7)])
def test_wilson_ends_solve_the_score_equation(successes, total):
    """(p - share)^2 = z^2 p (1 - p) / n at both ends: the definition, not the formula."""
    found, z = wilson_interval(successes, total), 1.959963984540054
    for end in (found.low, found.high):
        assert (end - found.value) ** 2 == pytest.approx(z * z * end * (1 - end) / total, rel=1e-9)
    assert found.low < found.value < found.high


def test_wilson_at_the_borders():
    none, all_, empty = wilson_interval(0, 10), wilson_interval(10, 10), wilson_interval(0, 0)
    assert (none.low, all_.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - all_.low) == pytest.approx(3.841458820694124 / (10 + 3.841458820694124))
    assert math.isnan(empty.value)
    assert (empty.low, empty.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="11 successes of 10"):
        wilson_interval(11, 10)


def test_wilson_covers():
    """About 95 % of intervals hold the true share; exact by summing over the binomial distribution."""
    share, total = 0.13, 60
    covered = sum(
        math.comb(total, k) * share**k * (1 - share) ** (total - k)
        for k in range(total + 1)
        if wilson_interval(k, total).low <= share <= wilson_interval(k, total).high
    )
    assert 0.93 < covered < 0.975


def test_kappa_is_that_of_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(5)
    for labels in (2, 3, 5):
        first = generator.integers(0, labels, 300)
        second = np.where(generator.random(300) < 0.6, first, generator.integers(0, labels, 300))
        table = np.zeros((labels, labels))
        np.add.at(table, (first, second), 1)
        assert cohen_kappa(table) == pytest.approx(metrics.cohen_kappa_score(first, second), abs=1e-12)


def test_kappa_where_chance_agrees_on_everything():
    assert math.isnan(cohen_kappa(np.array([[10, 0], [0, 0]])))
    assert math.isnan(cohen_kappa(np.zeros((2, 2))))
    assert cohen_kappa(np.array([[5, 0], [0, 5]])) == 1.0


def test_strata_count_for_their_sizes():
    """A rare stratum of which as much was sampled as of a common one counts for what it is."""
    tables = np.array([[[10, 0], [0, 0]], [[0, 0], [10, 0]]])  # all right in the first, all wrong in the second
    found = stratified_agreement(tables, np.array([990, 10]))
    assert found.agreement.value == pytest.approx(0.99)
    assert found.pairs == 20
    effective = 1 / (0.99**2 / 10 + 0.01**2 / 10)  # Kish
    expected = wilson_interval(0.99 * effective, effective)
    assert (found.agreement.low, found.agreement.high) == pytest.approx((expected.low, expected.high))
    weighted = 0.99 * np.array([[1, 0], [0, 0]]) + 0.01 * np.array([[0, 0], [1, 0]])
    assert found.kappa.value == pytest.approx(cohen_kappa(weighted))


def test_one_stratum_is_a_plain_sample():
    """The bootstrap's interval is that of the large-sample variance (Fleiss, Cohen and Everitt 1969)."""
    table = np.array([[80.0, 15.0], [10.0, 95.0]])
    found = stratified_agreement(table[None], np.array([12_345]), draws=20_000)
    assert found.agreement.value == pytest.approx(175 / 200)
    shares = table / table.sum()
    rows, columns, observed = shares.sum(1), shares.sum(0), np.trace(shares)
    chance = (rows * columns).sum()
    kappa = (observed - chance) / (1 - chance)
    a = sum(shares[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    b = (1 - kappa) ** 2 * sum(shares[i, j] * (columns[i] + rows[j]) ** 2 for i in range(2) for j in range(2) if i != j)
    c = (kappa - chance * (1 - kappa)) ** 2
    deviation = math.sqrt((a + b - c) / ((1 - chance) ** 2 * 200))
    assert found.kappa.value == pytest.approx(kappa)
    # 20,000 draws put an end of the interval within about 2 % of its reach; the rest is the normal approximation.
    assert found.kappa.high - kappa == pytest.approx(1.96 * deviation, rel=0.12)
    assert kappa - found.kappa.low == pytest.approx(1.96 * deviation, rel=0.12)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no document that both labelled"):
        stratified_agreement(np.zeros((2, 2, 2)), np.array([5, 5]))
    with pytest.raises(ValueError, match=r"\[H, L, L\]"):
        stratified_agreement(np.zeros((2, 2)), np.array([5, 5]))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, table I, method 3; and the limits at 0 and n, which are z2 / (n + z2) from the end.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(successes, trials, low, high):
    found = wilson_interval(successes, trials)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(trials - successes, trials)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=5e-5)
