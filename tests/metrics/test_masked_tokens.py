"""Masked-token counts: they add up however they are split, and each bucket holds what it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexbert_hf.metrics import MaskedTokenCounts, label_ranks, masked_accuracy, token_kinds


def test_masked_accuracy_weighs_tokens_not_batches():
    assert masked_accuracy(np.array([9, 0]), np.array([10, 1])) == 9 / 11
    assert masked_accuracy(1, 4) == 0.25
    assert math.isnan(masked_accuracy([], []))
    with pytest.raises(ValueError, match="3 correct tokens of 2 masked ones"):
        masked_accuracy([3], [2])


def test_label_ranks():
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0], [1.0, 2.0, 3.0]])
    assert label_ranks(logits, np.array([0, 2, 0])).tolist() == [0, 2, 2]


def test_ties_and_what_is_no_number_count_against_the_label():
    same, broken, endless = np.zeros(3), np.array([1.0, np.nan, 0.0]), np.array([np.inf, 1.0, -np.inf])
    logits = np.stack([same, same, broken, broken, broken, endless, endless, endless])
    assert label_ranks(logits, np.array([0, 2, 0, 1, 2, 0, 1, 2])).tolist() == [2] * 8
    assert label_ranks(np.array([[1.0, 1.0, -np.inf, 2.0]]), np.array([0])).tolist() == [2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_without_ties_rank_zero_is_the_argmax(seed, vocabulary):
    rng = np.random.default_rng(seed)
    logits, labels = (
        rng.permuted(np.tile(np.arange(vocabulary), (20, 1)), axis=1) / 7,
        rng.integers(vocabulary, size=20),
    )
    ranks = label_ranks(logits, labels)
    assert (ranks == 0).tolist() == (logits.argmax(1) == labels).tolist()
    order = np.argsort(-logits, axis=1)
    assert ranks.tolist() == [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]


def test_token_kinds_shortest_span_wins():
    kinds = token_kinds(8, np.array([1, 2, 2, 6]), np.array([5, 3, 6, 7]), np.array([3, 1, 0, 2]))
    assert kinds.tolist() == [-1, 3, 1, 0, 0, 0, 2, -1]
    assert token_kinds(2, np.array([], int), np.array([], int), np.array([], int)).tolist() == [-1, -1]


def test_buckets_by_hand():
    counts = MaskedTokenCounts(top_k=(1, 2), position_edges=(0, 4, 8), kinds=("price", "size"))
    counts.update(
        ranks=np.array([0, 1, 5, 0, 0]),
        positions=np.array([0, 3, 4, 7, 8]),
        kinds=np.array([0, -1, 0, 1, -1]),
        losses=np.array([1.0, 2.0, 3.0, 4.0, 5.0]),
    )
    assert counts.report() == {
        "accuracy": 3 / 5, "accuracy@2": 4 / 5, "loss": 3.0, "count": 5.0,
        "accuracy_0_3": 1 / 2, "accuracy@2_0_3": 1.0, "loss_0_3": 1.5, "count_0_3": 2.0,
        "accuracy_4_7": 1 / 2, "accuracy@2_4_7": 1 / 2, "loss_4_7": 3.5, "count_4_7": 2.0,
        "accuracy_price": 1 / 2, "accuracy@2_price": 1 / 2, "loss_price": 2.0, "count_price": 2.0,
        "accuracy_size": 1.0, "accuracy@2_size": 1.0, "loss_size": 4.0, "count_size": 1.0,
        "accuracy_guided": 2 / 3, "accuracy@2_guided": 2 / 3, "loss_guided": 8 / 3, "count_guided": 3.0,
        "accuracy_rest": 1 / 2, "accuracy@2_rest": 1.0, "loss_rest": 3.5, "count_rest": 2.0,
    }  # fmt: skip


def test_nothing_seen_reports_nothing():
    counts = MaskedTokenCounts()
    counts.update(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
    assert counts.report() == {}


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(-2, 12), st.integers(-1, 1)), max_size=30), st.integers(0, 30))
def test_parts_merge_to_the_whole(tokens, cut):
    columns = np.array(tokens, dtype=np.int64).reshape(-1, 3)

    def count(part: np.ndarray) -> MaskedTokenCounts:
        counts = MaskedTokenCounts(position_edges=(0, 5, 10), kinds=("price", "size"))
        counts.update(part[:, 0], part[:, 1], part[:, 2])
        return counts

    whole, parts = count(columns), [count(columns[:cut]), count(columns[cut:])]
    np.testing.assert_array_equal(parts[0].merge(parts[1]).values, whole.values)
    in_range = ((columns[:, 1] >= 0) & (columns[:, 1] < 10)).sum()
    assert whole.values[1:3, 0].sum() == in_range
    assert whole.values[3:, 0].sum() == whole.values[0, 0] == len(columns)


def test_values_travel_as_one_array():
    counts = MaskedTokenCounts(kinds=("price",))
    counts.update(np.array([0, 3]), np.array([1, 2]), np.array([0, -1]))
    total = MaskedTokenCounts(kinds=("price",), values=counts.values * 2)
    assert total.report()["count"] == 4
    assert total.report()["accuracy_price"] == 1.0
    with pytest.raises(ValueError, match="must have the shape"):
        MaskedTokenCounts(kinds=("price", "size"), values=counts.values)


def test_bad_input():
    counts = MaskedTokenCounts(kinds=("price",))
    with pytest.raises(ValueError, match="2 ranks but 1 positions"):
        counts.update(np.array([0, 1]), np.array([0]))
    with pytest.raises(ValueError, match="span kinds must lie in"):
        counts.update(np.array([0]), kinds=np.array([1]))
    with pytest.raises(ValueError, match="cannot merge"):
        counts.merge(MaskedTokenCounts())
    with pytest.raises(ValueError, match="must increase"):
        MaskedTokenCounts(position_edges=(5, 5))
