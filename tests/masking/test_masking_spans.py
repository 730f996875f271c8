from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_cases import eligible_of, random_rows

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking.spans import disjoint_spans, whole_spans
from rexbert_hf.masking.units import number_units, row_starts, word_starts


def greedy(start, end, score):
    """The rule written out: best span first, keep it when it touches none kept."""
    order = sorted(range(len(start)), key=lambda i: (-score[i], -(end[i] - start[i]), start[i], i))
    kept = []
    for i in order:
        if all(end[i] <= start[j] or end[j] <= start[i] for j in kept):
            kept.append(i)
    return [i in kept for i in range(len(start))]


span_lists = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(0, 4)), max_size=25)


@given(span_lists)
@settings(max_examples=300, deadline=None)
def test_overlaps_resolve_as_the_greedy_rule_does(spans):
    spans.sort(key=lambda span: span[0])
    start = np.array([s for s, _, _ in spans], dtype=np.int64)
    end = start + np.array([n for _, n, _ in spans], dtype=np.int64)
    score = np.array([q / 4 for _, _, q in spans])
    assert disjoint_spans(start, end, score).tolist() == greedy(start, end, score)


def test_a_chain_of_rising_scores_resolves_from_its_end():
    start = np.arange(0, 202, 2)
    keep = disjoint_spans(start, start + 3, np.linspace(0.1, 0.9, 101))
    assert keep.tolist() == [i % 2 == 0 for i in range(101)]


@pytest.mark.parametrize(
    ("spans", "kept"),
    [
        ([(0, 2, 0.5), (1, 3, 0.6)], [1]),  # higher score
        ([(0, 2, 0.5), (1, 4, 0.5)], [1]),  # longer
        ([(0, 2, 0.5), (1, 3, 0.5)], [0]),  # earlier
        ([(0, 2, 0.5), (0, 2, 0.5)], [0]),  # the same twice
        ([(0, 2, 0.5), (2, 4, 0.6)], [0, 1]),  # touching is no overlap
        ([(0, 9, 0.4), (1, 2, 0.5), (3, 4, 0.5), (8, 9, 0.5)], [1, 2, 3]),  # inside a weaker one
        ([(0, 9, 0.6), (1, 2, 0.5), (3, 4, 0.5), (10, 11, 0.1)], [0, 3]),
        ([(0, 3, 0.5), (2, 5, 0.6), (4, 7, 0.7)], [0, 2]),  # freed by the loss of its rival
    ],
)
def test_overlaps_by_hand(spans, kept):
    start, end, score = (np.array(values) for values in zip(*spans, strict=True))
    assert np.flatnonzero(disjoint_spans(start, end, score)).tolist() == kept


def row(words, *spans):
    fields = dict(zip(("span_start", "span_end", "span_score", "span_kind"), zip(*spans, strict=True), strict=True))
    ids = [2 if word == -1 else 9 for word in words]
    return {"input_ids": ids, "word_ids": words, **{name: list(values) for name, values in fields.items()}}


def resolve(*rows):
    batch = RowBatch.from_rows(rows)
    eligible = batch.word_ids >= 0
    spans, left_out = whole_spans(batch, word_starts(batch, eligible), eligible)
    return list(zip(spans.start.tolist(), spans.end.tolist(), spans.kind.tolist(), strict=True)), left_out


def test_spans_grow_to_word_borders():
    words = [-1, 0, 0, 0, 1, 2, 2, -1]
    assert resolve(row(words, (2, 3, 1.0, 1))) == ([(1, 4, 1)], 0)
    assert resolve(row(words, (3, 6, 1.0, 1))) == ([(1, 7, 1)], 0)
    assert resolve(row(words, (4, 5, 1.0, 1))) == ([(4, 5, 1)], 0)
    assert resolve(row([0, 0, 1, 1], (1, 3, 1.0, 1))) == ([(0, 4, 1)], 0)


def test_two_spans_that_share_a_word_after_growing_are_rivals():
    assert resolve(row([0, 0, 1, 1], (0, 1, 0.4, 1), (1, 3, 0.5, 2))) == ([(0, 4, 2)], 0)


def test_rows_are_counted_on():
    words = [-1, 0, 1, -1]
    spans = [(1, 3, 0.5, 3)]
    assert resolve(row(words, *spans), row(words, *spans)) == ([(1, 3, 3), (5, 7, 3)], 0)


def test_spans_over_special_tokens_or_row_borders_are_left_out():
    words = [-1, 0, 1, -1, 0, 1, -1]
    good = (1, 3, 0.1, 0)
    for bad in [(2, 5, 0.9, 1), (3, 5, 0.9, 1), (0, 2, 0.9, 1), (5, 7, 0.9, 1), (3, 4, 0.9, 1)]:
        assert resolve(row(words, *sorted([good, bad]))) == ([(1, 3, 0)], 1)
    assert resolve(row([0, 1], (1, 3, 0.9, 1)), row([0, 1], (0, 1, 0.5, 2))) == ([(2, 3, 2)], 1)


def test_unsorted_spans_are_sorted():
    assert resolve(row([0, 1, 2, 3], (2, 4, 0.5, 1), (0, 1, 0.5, 2))) == ([(0, 1, 2), (2, 4, 1)], 0)


@pytest.mark.parametrize("span", [(2, 2, 0.5, 0), (2, 1, 0.5, 0), (-1, 2, 0.5, 0), (1, 9, 0.5, 0), (0, 1, 1.5, 0)])
def test_a_broken_span_is_named(span):
    with pytest.raises(ValueError, match=rf"row 0 of the batch: span \[{span[0]}, {span[1]}\) with score {span[2]} is"):
        resolve(row([0, 1, 2], span))


def test_a_broken_span_of_a_later_row_is_counted_in_its_row():
    with pytest.raises(ValueError, match=r"row 1 of the batch: span \[0, 0\)"):
        resolve(row([0, 1], (0, 1, 0.5, 0)), row([0, 1, 2], (0, 0, 0.5, 0)))


def test_a_score_that_is_no_number_is_named():
    with pytest.raises(ValueError, match=r"row 0 of the batch: span \[0, 1\) with score nan"):
        resolve(row([0, 1], (0, 1, float("nan"), 0)))


def test_random_spans_end_whole_sorted_and_apart():
    rows = random_rows(200, seed=4, spans=True)
    batch = RowBatch.from_rows(rows)
    eligible = eligible_of(rows)
    starts = word_starts(batch, eligible)
    spans, left_out = whole_spans(batch, starts, eligible)
    assert left_out == 0
    assert len(spans.start) > 300
    assert (spans.end[:-1] <= spans.start[1:]).all()
    assert starts[spans.start].all()
    assert np.append(starts, True)[spans.end].all()


def test_word_starts_by_hand():
    rows = [
        {"input_ids": [2, 9, 9, 9, 3, 9, 3], "word_ids": [-1, 0, 0, 1, -1, 0, -1]},
        {"input_ids": [9, 9, 9], "word_ids": [0, 0, 5]},
        {"input_ids": [9, 9], "word_ids": [5, 5]},
    ]
    batch = RowBatch.from_rows(rows)
    starts = word_starts(batch, batch.word_ids >= 0)
    assert starts.astype(int).tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0]
    assert number_units(starts).tolist() == [0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 8]
    assert row_starts(batch).astype(int).tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0]


def test_a_special_token_cuts_a_word():
    batch = RowBatch.from_rows([{"input_ids": [9, 3, 9, 9], "word_ids": [0, 0, 0, 0]}])
    assert word_starts(batch, batch.input_ids != 3).tolist() == [True, True, True, False]


def test_empty_rows_start_nothing():
    rows = [{"input_ids": ids, "word_ids": words} for ids, words in (([], []), ([9, 9], [0, 0]), ([], []))]
    batch = RowBatch.from_rows(rows)
    assert word_starts(batch, np.ones(2, dtype=bool)).tolist() == [True, False]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=12))
def test_ranges_are_those_written_out(pairs):
    first = np.array([f for f, _ in pairs], dtype=np.int64)
    counts = np.array([n for _, n in pairs], dtype=np.int64)
    assert ranges(first, counts).tolist() == [f + i for f, n in pairs for i in range(n)]
