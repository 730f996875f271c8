"""Correlations equal scipy's, and sums give what the examples give."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rexbert_hf.metrics.correlation import average_ranks, pearson, spearman

ties = st.lists(st.integers(-3, 3), min_size=2, max_size=40)
numbers = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=40)


def pairs(values, seed):
    rng = np.random.default_rng(seed)
    return np.array(values, dtype=float), rng.permutation(values) + rng.normal(size=len(values)) * (seed % 2)


def same(ours, theirs):
    assert (math.isnan(ours) and math.isnan(theirs)) or ours == pytest.approx(theirs, abs=1e-9)


@given(st.one_of(ties, numbers), st.integers(0, 10**6))
def test_ranks_and_spearman_are_scipys(values, seed):
    x, y = pairs(values, seed)
    np.testing.assert_array_equal(average_ranks(x), stats.rankdata(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(spearman(x, y), float(stats.spearmanr(x, y).statistic))


@given(ties, st.integers(0, 10**6), st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_pearson_is_scipys_whatever_the_shift(values, seed, shift, scale):
    x, y = pairs(values, seed)
    x = x * scale + shift
    if np.ptp(x) == 0 or np.ptp(y) == 0:  # of two equal values older versions of scipy say 0
        assert math.isnan(pearson(x, y))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(pearson(x, y), float(stats.pearsonr(x, y).statistic))


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1], [1, 2, 3]), ([1, 2], [5, 5]), ([3], [4]), ([], [])])
def test_a_constant_side_has_no_correlation(x, y):
    assert math.isnan(pearson(x, y))
    assert math.isnan(spearman(x, y))


def test_bad_input_names_the_row():
    with pytest.raises(ValueError, match="3 values on one side and 2"):
        pearson([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="row 1: nan"):
        spearman([1, float("nan")], [1, 2])
