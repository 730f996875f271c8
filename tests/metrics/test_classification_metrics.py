"""Accuracy, micro and macro F1 against scikit-learn, with absent classes, for classes and for label sets."""

from __future__ import annotations

import numpy as np
import pytest

from rexbert_hf.metrics.classification import (
    label_counts,
    label_scores,
    label_sums,
    macro_f1,
    micro_f1,
    one_hot,
    scores_of_sums,
)

CASES = [(20, 3, 0), (200, 7, 1), (50, 40, 2), (5, 12, 3), (1, 2, 4)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rows", "classes", "seed"), CASES)
def test_classes_equal_sklearn(rows, classes, seed):
    """With 40 classes in 50 rows many are absent from gold, from predictions or from both."""
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, classes, rows)
    predicted = np.where(generator.random(rows) < 0.5, gold, generator.integers(0, classes, rows))
    counts = label_counts(one_hot(gold, classes), one_hot(predicted, classes))
    expected = {
        "accuracy": metrics.accuracy_score(gold, predicted),
        "micro_f1": metrics.f1_score(gold, predicted, average="micro"),
        "macro_f1": metrics.f1_score(gold, predicted, average="macro"),
    }
    assert label_scores(counts) == pytest.approx(expected, abs=1e-9)
    everything = metrics.f1_score(gold, predicted, average="macro", labels=list(range(classes)), zero_division=0)
    assert label_scores(counts, absent="zero")["macro_f1"] == pytest.approx(everything, abs=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rows", "classes", "seed"), CASES)
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_label_sets_equal_sklearn(rows, classes, seed, density):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    gold = generator.random((rows, classes)) < density
    predicted = gold ^ (generator.random((rows, classes)) < 0.1)
    counts = label_counts(gold, predicted)
    expected = {
        "accuracy": metrics.accuracy_score(gold, predicted),
        "micro_f1": metrics.f1_score(gold, predicted, average="micro", zero_division=0),
        "macro_f1": metrics.f1_score(gold, predicted, average="macro", zero_division=0),
    }
    assert label_scores(counts, absent="zero") == pytest.approx(expected, abs=1e-9)
    seen = np.flatnonzero((gold | predicted).any(axis=0))
    skipping = metrics.f1_score(gold[:, seen], predicted[:, seen], average="macro", zero_division=0) if len(seen) else 0
    assert label_scores(counts)["macro_f1"] == pytest.approx(skipping, abs=1e-9)


def test_sums_of_resamples_give_their_figures():
    generator = np.random.default_rng(7)
    counts = label_counts(generator.random((30, 4)) < 0.4, generator.random((30, 4)) < 0.4)
    draws = generator.integers(0, 30, (6, 30))
    sums = counts[draws].sum(axis=1)
    single = [label_scores(counts[draw]) for draw in draws]
    assert micro_f1(sums).tolist() == pytest.approx([one["micro_f1"] for one in single], abs=1e-12)
    assert macro_f1(sums).tolist() == pytest.approx([one["macro_f1"] for one in single], abs=1e-12)
    assert (sums[:, -1] / 30).tolist() == pytest.approx([one["accuracy"] for one in single], abs=1e-12)


@pytest.mark.parametrize(("rows", "classes"), [(30, 4), (1, 1), (7, 12)])
def test_sums_are_those_of_the_rows(rows, classes):
    generator = np.random.default_rng(rows)
    gold, predicted = generator.random((2, rows, classes)) < 0.4
    counts = label_counts(gold, predicted)
    np.testing.assert_array_equal(label_sums(gold, predicted), counts.sum(axis=0))
    for absent in ("skip", "zero"):
        assert scores_of_sums(label_sums(gold, predicted), rows, absent) == label_scores(counts, absent)
    with pytest.raises(ValueError, match=r"gold labels have shape .+: both are \[n, C\]"):
        label_sums(gold, predicted[:, :0])


def test_by_hand():
    """Three classes, the last one nowhere; the others counted out."""
    gold, predicted = [0, 0, 1, 1, 1], [0, 0, 1, 0, 0]
    scores = label_scores(label_counts(one_hot(gold, 3), one_hot(predicted, 3)))
    first, second = 2 * 2 / (4 + 2), 2 * 1 / (1 + 3)
    assert scores["macro_f1"] == pytest.approx((first + second) / 2)
    assert scores["accuracy"] == scores["micro_f1"] == pytest.approx(3 / 5)


def test_bad_input():
    with pytest.raises(ValueError, match="example 1 has class 3"):
        one_hot([0, 3], 3)
    with pytest.raises(ValueError, match="example 0 has class -1"):
        one_hot([-1], 3)
    with pytest.raises(ValueError, match="no example to score"):
        label_scores(np.zeros((0, 7)))
    with pytest.raises(ValueError, match="absent is 'drop'"):
        label_scores(np.ones((1, 7)), absent="drop")
    with pytest.raises(ValueError, match=r"shape \(1, 2\), predicted \(1, 3\)"):
        label_counts(np.ones((1, 2), bool), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="5 columns are no label counts"):
        micro_f1(np.ones(5))
