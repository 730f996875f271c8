"""Paired bootstrap: the draws, coverage, p-values known exactly or from theory; Holm by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rexbert_hf.metrics import holm, paired_difference, resample_scores, resample_sums


def test_sums_are_those_of_the_drawn_rows():
    examples = np.random.default_rng(0).normal(size=(37, 3))
    sums = resample_sums(examples, resamples=50, seed=4)
    for column in range(3):
        scores = resample_scores(examples, lambda rows, c=column: rows[:, c].sum(), 50, seed=4)
        assert np.allclose(scores, sums[:, column])


def test_draws_do_not_depend_on_how_many_are_held(monkeypatch):
    examples = np.random.default_rng(1).normal(size=(20, 1))
    whole = resample_sums(examples, resamples=60, seed=3)
    monkeypatch.setattr("rexbert_hf.metrics.bootstrap._BLOCK_DRAWS", 7 * 20)
    assert np.allclose(resample_sums(examples, resamples=60, seed=3), whole)


def test_systems_share_the_draws():
    """Side by side or one after the other: what is drawn depends on seed and number of examples alone."""
    first, second = np.random.default_rng(2).normal(size=(2, 30, 1))
    together = resample_sums(np.hstack([first, second]), 40, seed=1)
    assert np.allclose(together[:, :1], resample_sums(first, 40, seed=1))
    assert np.allclose(together[:, 1:], resample_sums(second, 40, seed=1))
    assert not np.allclose(resample_sums(first, 40, seed=2), resample_sums(first, 40, seed=1))


def exact_p(differences: np.ndarray) -> float:
    """Share of all n^n equally probable resamples that are as far from the mean as that is from 0."""
    mean = differences.mean()
    means = [np.mean(rows) for rows in itertools.product(differences, repeat=len(differences))]
    return float(np.mean([abs(m - mean) >= abs(mean) * (1 - 1e-12) for m in means]))


@pytest.mark.parametrize("differences", [[1.0, 2.0, -0.5, 0.7, 0.2], [0.3, -0.4, 0.1, 0.6], [1.0, 0.0, 0.0, 0.0]])
def test_p_value_is_that_of_all_resamples(differences):
    examples, resamples = np.array(differences)[:, None], 40_000
    scores = resample_sums(examples, resamples)[:, 0] / len(examples)
    p = paired_difference(float(examples.mean()), scores, np.zeros(resamples)).p_value
    wanted = exact_p(examples[:, 0])
    assert p == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / resamples) + 1e-4)


@pytest.mark.parametrize("z", [0.0, 1.0, 1.96, 2.6])
def test_p_value_is_that_of_the_normal_test(z):
    """500 normal differences, moved so that mean / standard error is z exactly: p = 2 (1 - Phi(z))."""
    n = 500
    noise = np.random.default_rng(5).normal(size=n)
    noise = (noise - noise.mean()) / noise.std()
    differences = noise + z / math.sqrt(n)
    scores = resample_sums(differences[:, None], 20_000)[:, 0] / n
    p = paired_difference(float(differences.mean()), scores, np.zeros(20_000)).p_value
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.012)


def test_intervals_cover_and_the_test_keeps_its_level():
    """1,000 simulated pairs without a difference: 95 % covered, 5 % called real (three standard errors are .021)."""
    rng = np.random.default_rng(6)
    covered = real = 0
    for trial in range(1_000):
        base = rng.random((80, 1))
        first, second = (base + rng.normal(0, 0.3, (80, 1)) for _ in range(2))
        sums = resample_sums(np.hstack([first, second]), 400, seed=trial) / 80
        found = paired_difference(float((first - second).mean()), sums[:, 0], sums[:, 1])
        covered += found.low <= 0 <= found.high
        real += found.p_value < 0.05
    assert 0.92 <= covered / 1_000 <= 0.97
    assert 0.03 <= real / 1_000 <= 0.08


def test_pairing_finds_what_the_spread_of_examples_would_hide():
    rng = np.random.default_rng(7)
    hard = rng.random((300, 1)) * 10
    first, second = hard + 0.1 + rng.normal(0, 0.2, (300, 1)), hard + rng.normal(0, 0.2, (300, 1))
    sums = resample_sums(np.hstack([first, second]), 2_000) / 300
    value = float((first - second).mean())
    assert paired_difference(value, sums[:, 0], sums[:, 1]).p_value < 0.01
    unpaired = resample_sums(second, 2_000, seed=1)[:, 0] / 300
    assert paired_difference(value, sums[:, 0], unpaired).p_value > 0.3


def test_equal_systems_do_not_differ():
    scores = resample_sums(np.random.default_rng(8).random((50, 1)), 500)[:, 0]
    assert paired_difference(0.0, scores, scores).p_value == 1.0


def test_holm_by_hand():
    # Sorted .001 .008 .039 .041 .042: times 5 4 3 2 1 = .005 .032 .117 .082 .042, made to rise.
    values = np.array([0.041, 0.001, 0.042, 0.039, 0.008])
    assert holm(values).tolist() == pytest.approx([0.117, 0.005, 0.117, 0.117, 0.032])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.02])).tolist() == [0.02]
    assert holm(np.zeros(0)).tolist() == []


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="empty"):
        resample_sums(np.zeros((0, 1)))
    with pytest.raises(ValueError, match="do not belong together"):
        paired_difference(0.0, np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="p-value"):
        holm(np.array([0.1, np.nan]))


def test_copies_of_a_row_in_one_group_are_that_row():
    examples = np.random.default_rng(9).normal(size=(25, 2))
    copies, groups = np.repeat(examples, 3, axis=0), np.repeat(np.arange(25), 3)
    assert np.allclose(resample_sums(copies, 50, groups=groups), 3 * resample_sums(examples, 50))
    mixed = np.random.default_rng(0).permutation(75)
    scores = [
        resample_scores(rows, lambda drawn: float(np.median(drawn[:, 0])), 50, groups=names)
        for rows, names in ((copies, groups), (copies[mixed], groups[mixed].astype(str)))
    ]
    assert np.allclose(scores[0], resample_scores(examples, lambda drawn: float(np.median(drawn[:, 0])), 50))
    assert not np.allclose(*scores)  # another order of the groups, so other draws ...
    assert np.allclose(*(np.mean(one) for one in scores), atol=0.1)  # ... of the same kind


def test_groups_of_one_are_rows():
    examples, names = np.random.default_rng(1).normal(size=(2, 30, 1))[0], np.array([f"row {i}" for i in range(30)])
    assert np.array_equal(resample_sums(examples, 40, groups=names), resample_sums(examples, 40))
    loop = resample_scores(examples, lambda rows: rows.sum(), 40, groups=names)
    assert np.allclose(loop, resample_sums(examples, 40)[:, 0])


def test_drawn_groups_are_whole():
    """Sums of ones are numbers of drawn rows, and the loop sees these very rows."""
    groups = np.array([0, 1, 0, 2, 2, 2, 1])
    rows = np.column_stack([np.ones(7), groups])
    sums = resample_sums(rows, 200, groups=groups)
    counts = []
    resample_scores(
        rows, lambda drawn: counts.append(np.bincount(drawn[:, 1].astype(int), minlength=3)) or 0.0, 200, groups=groups
    )
    counts = np.array(counts)
    assert (counts % [2, 2, 3] == 0).all()
    assert np.array_equal(counts.sum(axis=1), sums[:, 0])
    assert ((counts // [2, 2, 3]).sum(axis=1) == 3).all()


def test_level_of_grouped_examples_without_a_difference():
    """40 groups of 8 with half of the variance between groups: rows would be "real" far too often."""
    rng, by_group, by_row = np.random.default_rng(3), 0, 0
    groups, trials = np.repeat(np.arange(40), 8), 400
    for trial in range(trials):
        gap = (rng.normal(size=40).repeat(8) + rng.normal(size=320))[:, None]
        for names in (groups, None):
            scores = resample_sums(gap, 400, seed=trial, groups=names)[:, 0] / 320
            real = paired_difference(float(gap.mean()), scores, np.zeros(400)).p_value < 0.05
            by_group, by_row = by_group + (real and names is not None), by_row + (real and names is None)
    assert by_group / trials < 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials)
    assert by_row / trials > 0.2


def test_groups_that_do_not_belong():
    with pytest.raises(ValueError, match="2 groups for 3 examples"):
        resample_sums(np.ones((3, 1)), groups=np.array([0, 1]))
    with pytest.raises(ValueError, match="2 groups for 3 examples"):
        resample_scores(np.ones((3, 1)), np.mean, groups=np.array([0, 1]))
