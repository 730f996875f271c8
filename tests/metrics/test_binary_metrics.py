"""Accuracy, F1 and Matthews' correlation equal scikit-learn's, also where they have no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from rexbert_hf.metrics.binary import (
    accuracy,
    accuracy_of_sums,
    best_f1_cut,
    binary_counts,
    binary_f1,
    f1_of_sums,
    matthews,
    matthews_of_sums,
)

pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
classes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs)
def test_binary_figures_are_scikit_learns(rows):
    gold, said = np.array(rows).T
    sums = binary_counts(gold, said).sum(axis=0)
    assert binary_f1(gold, said) == pytest.approx(sk.f1_score(gold, said, zero_division=0), abs=1e-9)
    assert float(matthews_of_sums(sums)) == pytest.approx(sk.matthews_corrcoef(gold, said), abs=1e-9)
    assert float(accuracy_of_sums(sums)) == pytest.approx(sk.accuracy_score(gold, said), abs=1e-9)


@given(classes)
def test_matthews_of_several_classes_is_scikit_learns(rows):
    gold, said = np.array(rows).T
    assert matthews(gold, said) == pytest.approx(sk.matthews_corrcoef(gold, said), abs=1e-9)
    assert accuracy(gold, said) == pytest.approx(sk.accuracy_score(gold, said), abs=1e-9)


def test_large_counts_keep_their_digits():
    counts = np.array([900_001, 7, 3, 2_000_003])
    gold = np.repeat([1, 0, 1, 0], counts)
    said = np.repeat([1, 1, 0, 0], counts)
    assert float(matthews_of_sums(counts)) == pytest.approx(sk.matthews_corrcoef(gold, said), abs=1e-9)


def test_one_class_and_many_resamples():
    assert matthews([1, 1], [1, 1]) == matthews([0, 1], [1, 1]) == binary_f1([0, 0], [0, 0]) == 0.0
    sums = np.array([[[3, 1, 2, 9], [0, 0, 0, 5]]])
    assert f1_of_sums(sums).shape == matthews_of_sums(sums).shape == (1, 2)
    assert f1_of_sums(sums)[0, 1] == matthews_of_sums(sums)[0, 1] == 0.0


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match="2 gold labels but 1 predictions"):
        accuracy([1, 0], [1])
    with pytest.raises(ValueError, match="there is no example"):
        matthews([], [])
    with pytest.raises(ValueError, match=r"row 1: .*2.* is neither 0 nor 1"):
        binary_f1([1, 2], [1, 0])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=1, max_size=40))
def test_the_best_cut_is_as_good_as_any_of_scikit_learns(rows):
    scores, gold = np.array(rows, dtype=np.float64).T
    cut = best_f1_cut(scores, gold)
    precision, recall, _ = sk.precision_recall_curve(gold, scores) if gold.any() else (np.zeros(1), np.zeros(1), None)
    total = np.where(precision + recall > 0, precision + recall, 1.0)
    found = sk.f1_score(gold, scores > cut, zero_division=0)
    assert found == pytest.approx(float((2 * precision * recall / total).max()), abs=1e-9)
    assert not (scores == cut).any(), "no example lies on the cut"


def test_the_highest_of_equally_good_cuts():
    assert best_f1_cut([3.0, 2.0, 1.0], [1, 1, 0]) == 1.5
    assert best_f1_cut([3.0, 2.0, 1.0], [0, 0, 1]) == 0.5, "yes to all is best, and lies below all"
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        best_f1_cut([0.1, 0.2], [0, 2])
