"""Comparisons against resampling written out, example by example."""

from __future__ import annotations

import numpy as np
import pytest
from toy_tasks import Median, Toy

from rexbert_hf.evaluation.comparing import compare, resampled
from rexbert_hf.metrics import holm


class F1(Toy):
    """Span F1: statistics are true positives, predicted, gold."""

    name = "f1"

    def score_sums(self, sums, n):
        return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])


class SlowF1(F1):
    """The same, with a loop over resamples."""

    name = "slow_f1"
    additive = False


def span_counts(seed, n=40):
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(1, 5, n), rng.integers(1, 5, n)
    return np.stack([rng.integers(0, np.minimum(gold, predicted) + 1), predicted, gold], axis=1).astype(float)


def test_additive_scores_are_those_of_a_loop():
    arrays = [span_counts(seed) for seed in range(3)]
    fast, slow = resampled(F1(), arrays, 300), resampled(SlowF1(), arrays, 300)
    assert np.allclose(fast, slow)


def test_the_statistic_is_the_mean_over_seeds():
    first, second = [span_counts(seed) for seed in (1, 2)], [span_counts(5)]
    (row,) = compare([F1()], {("f1", "a"): first, ("f1", "b"): second}, [("a", "b")], 400)
    task = F1()
    assert row.difference == pytest.approx(np.mean([task.score(x) for x in first]) - task.score(second[0]))
    assert row.low < row.difference < row.high


def test_holm_goes_over_the_tasks_of_a_pair():
    rng = np.random.default_rng(0)
    examples = {}
    for task, gap in (("toy", 0.3), ("median", 0.15), ("f1", 0.0)):
        base = rng.random((80, 1))
        noise = rng.normal(0, 0.6, (80, 1))
        examples[task, "a"], examples[task, "b"] = [base + gap + noise], [base]
        if task == "f1":
            examples[task, "a"], examples[task, "b"] = [span_counts(1)], [span_counts(2)]
    found = compare([Toy(), Median(), F1()], examples, [("a", "b"), ("b", "a")], 500)
    for pair in (found[:3], found[3:]):
        assert [row.adjusted for row in pair] == holm(np.array([row.p_value for row in pair])).tolist()
    assert [row.difference for row in found[:3]] == pytest.approx([-row.difference for row in found[3:]])
    assert [row.p_value for row in found[:3]] == pytest.approx([row.p_value for row in found[3:]], abs=0.02)


def test_slow_scores_are_kept(tmp_path, monkeypatch, caplog):
    arrays = [np.random.default_rng(1).random((30, 1))]
    first = resampled(Median(), arrays, 200, tmp_path)
    monkeypatch.setattr("rexbert_hf.evaluation.comparing.resample_scores", None)
    assert np.array_equal(resampled(Median(), arrays, 200, tmp_path), first)
    monkeypatch.undo()
    (kept,) = (tmp_path / "resampled").iterdir()
    whole = kept.read_bytes()
    for damaged in (b"", whole[:40], whole[:-8]):
        kept.write_bytes(damaged)
        assert np.array_equal(resampled(Median(), arrays, 200, tmp_path), first)
        assert "computed again" in caplog.text
        assert kept.read_bytes() == whole


def test_other_test_sets_are_not_compared(caplog):
    examples = {("toy", "a"): [np.ones((5, 1))], ("toy", "b"): [np.ones((6, 1))]}
    assert compare([Toy()], examples, [("a", "b"), ("a", "c")]) == []
    assert "5 test examples and b 6" in caplog.text


def test_means_over_other_cells_are_not_compared(caplog):
    examples = {("toy", name): [np.random.default_rng(0).random((10, 1))] for name in "abc"}
    over = {("toy", "a"): ("2 layers",), ("toy", "b"): ("2 layers",), ("toy", "c"): ("4 layers",)}
    found = compare([Toy()], examples, [("a", "b"), ("a", "c")], 100, over=over)
    assert [(row.first, row.second) for row in found] == [("a", "b")]
    assert "the figures of a and c are means over other cells" in caplog.text


def test_examples_of_one_text_are_drawn_together():
    """Each example five times: by rows a difference seems better known than by the texts that there are."""
    rng = np.random.default_rng(4)
    once = {"a": rng.random((30, 1)) + 0.1, "b": rng.random((30, 1))}
    groups = {"toy": np.repeat(np.arange(30), 5)}
    (alone,) = compare([Toy()], {("toy", name): [rows] for name, rows in once.items()}, [("a", "b")], 500)
    copies = {("toy", name): [np.repeat(rows, 5, axis=0)] for name, rows in once.items()}
    (grouped,) = compare([Toy()], copies, [("a", "b")], 500, groups=groups)
    (rows,) = compare([Toy()], copies, [("a", "b")], 500)
    told = (grouped.difference, grouped.low, grouped.high, grouped.p_value)
    assert told == pytest.approx((alone.difference, alone.low, alone.high, alone.p_value))
    assert (alone.drawn, grouped.drawn, rows.drawn) == (30, 30, 150)
    assert rows.high - rows.low < 0.7 * (grouped.high - grouped.low)


def test_additive_scores_of_groups_are_those_of_a_loop(tmp_path):
    arrays, groups = [span_counts(seed) for seed in range(3)], np.arange(40) % 13
    fast = resampled(F1(), arrays, 300, groups=groups)
    assert np.allclose(fast, resampled(SlowF1(), arrays, 300, tmp_path, groups))
    assert not np.allclose(fast, resampled(SlowF1(), arrays, 300, tmp_path))  # kept apart


def test_few_groups_are_not_compared(caplog):
    examples = {("toy", name): [np.random.default_rng(0).random((40, 1))] for name in "ab"}
    assert compare([Toy()], examples, [("a", "b")], 100, groups={"toy": np.arange(40) % 9}) == []
    assert "40 test examples fall into 9 groups" in caplog.text


@pytest.mark.parametrize(("count", "compared"), [(9, False), (10, True)])
def test_few_examples_without_groups_are_not_compared(caplog, count, compared):
    """Nine hits against nine misses would be a real difference: every resample says the same."""
    examples = {("toy", "a"): [np.ones((count, 1))], ("toy", "b"): [np.zeros((count, 1))]}
    assert bool(compare([Toy()], examples, [("a", "b")], 100, groups={"toy": None})) == compared
    assert ("toy: its 9 test examples are fewer than 10" in caplog.text) == (not compared)


def test_unequal_numbers_of_seeds_are_told(caplog):
    examples = {("toy", "a"): [np.ones((10, 1))] * 2, ("toy", "b"): [np.zeros((10, 1))]}
    assert len(compare([Toy()], examples, [("a", "b")], 100)) == 1
    assert "a has 2 seeds and b 1" in caplog.text
