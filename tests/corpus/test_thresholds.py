from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexbert_hf.corpus.threshold_plot import draw_sweep
from rexbert_hf.corpus.thresholds import GRID, bootstrap_f1, choose, sweep

SCORES = np.array([0.95, 0.9, 0.8, 0.6, 0.4, 0.3])
TRUTH = np.array([True, True, False, True, False, True])


def test_known_answers():
    found = sweep(SCORES, TRUTH, np.array([0.0, 0.5, 0.85, 0.99]))
    assert found.true_positives.tolist() == [4, 3, 2, 0]
    assert found.false_positives.tolist() == [2, 1, 0, 0]
    assert found.precision[:3].tolist() == [4 / 6, 3 / 4, 1.0]
    assert np.isnan(found.precision[3])
    assert found.recall.tolist() == [1.0, 0.75, 0.5, 0.0]
    assert found.f1.tolist() == [0.8, 0.75, 2 / 3, 0.0]


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=2, max_size=50))
def test_counts_are_those_of_comparing(pairs):
    scores, truth = np.array([s / 100 for s, _ in pairs]), np.array([t for _, t in pairs])
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="needs both"):
            sweep(scores, truth)
        return
    found = sweep(scores, truth)
    for i, threshold in enumerate(GRID):
        assert found.true_positives[i] == (truth & (scores >= threshold)).sum()
        assert found.false_positives[i] == (~truth & (scores >= threshold)).sum()


def test_best_f1_is_taken_in_the_middle_of_its_plateau():
    found = sweep(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False]))
    assert GRID[choose(found)] == pytest.approx(0.5)  # all of 0.21 to 0.80 are right


def test_target_precision_takes_the_lowest_threshold_that_reaches_it():
    found = sweep(SCORES, TRUTH)
    assert GRID[choose(found, "precision", 0.75)] == pytest.approx(0.41)
    assert GRID[choose(found, "precision", 1.0)] == pytest.approx(0.81)


def test_a_precision_out_of_reach_is_refused_with_the_best_one():
    found = sweep(np.array([0.9, 0.8]), np.array([False, True]))
    with pytest.raises(ValueError, match=r"reaches a precision of 0\.9: the best is 0\.500 at 0\.01"):
        choose(found, "precision", 0.9)


def test_bootstrap_of_f1_covers_what_it_should():
    """Of 200 draws from a population with F1 0.8, about 95 % of the intervals hold it (4 sigma more: 22)."""
    rng = np.random.default_rng(0)
    population = np.array([0.4, 0.1, 0.1, 0.4])
    misses = 0
    for seed in range(200):
        low, high = bootstrap_f1(*rng.multinomial(400, population), seed=seed)
        misses += not low <= 0.8 <= high
    assert 1 <= misses <= 10 + 4 * 3.1


def test_figures_at_a_threshold_hold_their_intervals():
    found = sweep(SCORES, TRUTH).at(49)
    assert found["threshold"] == 0.5
    assert (found["documents"], found["positives"]) == (6, 4)
    for name in ("precision", "recall", "f1"):
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="one number for each"):
        sweep(np.array([0.5, np.nan]), np.array([True, False]))


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_small_and_the_same_every_time(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    found = sweep(SCORES, TRUTH)
    first, second = (draw_sweep(found, tmp_path / f"{name}.{suffix}", 0.5) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert 1_000 < first.stat().st_size < 100_000
