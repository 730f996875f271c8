"""Count baselines against dictionaries of counters."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.metrics import NeighbourCountBaseline, UnigramBaseline, counts

VOCAB, CLS, SEP, MASK = 9, 0, 1, 2
SPECIAL = [CLS, SEP, MASK]


def best(counter):
    """Most frequent token, ties to the lower id, and its share with one count of doubt."""
    token = min(counter, key=lambda item: (-counter[item], item))
    return token, counter[token] / (sum(counter.values()) + 1)


def reference(train, inputs, labels):
    """Predictions of the documented rule, with plain loops."""
    unigram, tables = Counter(), [defaultdict(Counter) for _ in range(3)]
    for document in train:
        ends = [None, *document, None]
        for before, token, after in zip(ends, ends[1:], ends[2:], strict=False):
            if token not in SPECIAL:
                unigram[token] += 1
                for table, context in zip(tables, ((before, after), before, after), strict=True):
                    table[context][token] += 1
    guesses = []
    for document, wanted in zip(inputs, labels, strict=True):
        ends = [None, *document, None]
        for before, token, after, label in zip(ends, document, ends[2:], wanted, strict=False):
            if label == -100:
                continue
            if token != MASK:
                guesses.append(token)
                continue
            sides = [
                best(table[context])
                for table, context in ((tables[1], before), (tables[2], after))
                if context != MASK and context in table
            ]
            if MASK not in (before, after) and (before, after) in tables[0]:
                guesses.append(best(tables[0][before, after])[0])
            elif sides:
                guesses.append(max(sides, key=lambda side: side[1])[0])
            else:
                guesses.append(best(unigram)[0])
    return guesses


documents = st.lists(st.lists(st.integers(3, VOCAB - 1), max_size=8).map(lambda ids: [CLS, *ids, SEP]), max_size=6)


@settings(max_examples=200)
@given(documents, documents, st.randoms(use_true_random=False))
def test_equals_the_rule_in_plain_loops(train, test, random):
    train = [*train, [CLS, 3, SEP]]
    labels = [[token if token > 2 and random.random() < 0.4 else -100 for token in row] for row in test]
    inputs = [
        [MASK if label != -100 and random.random() < 0.8 else token for token, label in zip(row, wanted, strict=True)]
        for row, wanted in zip(test, labels, strict=True)
    ]
    baseline = NeighbourCountBaseline.fit([{"input_ids": row} for row in train], VOCAB, SPECIAL)
    if not test:
        return
    batch = RowBatch.from_rows([{"input_ids": row} for row in inputs])
    flat_labels = np.concatenate([np.array(row) for row in labels])
    guesses = baseline.predict(batch.input_ids, flat_labels, MASK, batch.offsets)
    assert guesses.tolist() == reference(train, inputs, labels)
    expected = [g == t for g, t in zip(guesses, flat_labels[flat_labels != -100], strict=True)]
    assert baseline.correct(batch.input_ids, flat_labels, MASK, offsets=batch.offsets).tolist() == expected


def test_the_form_and_the_chunks_of_the_text_do_not_matter():
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(3, VOCAB, size=n)} for n in rng.integers(0, 30, size=20)]
    whole = RowBatch.from_rows(rows)
    forms = [
        rows,
        whole,
        [RowBatch.from_rows(rows[:7]), RowBatch.from_rows(rows[7:])],
        [(whole.input_ids, whole.offsets)],
    ]
    fitted = [NeighbourCountBaseline.fit(form, VOCAB) for form in forms]
    for other in fitted[1:]:
        for name in ("both", "left", "right"):
            first, second = getattr(fitted[0], name), getattr(other, name)
            np.testing.assert_array_equal(first.contexts, second.contexts)
            np.testing.assert_array_equal(first.tokens, second.tokens)
            np.testing.assert_array_equal(first.shares, second.shares)
        assert other.unigram == fitted[0].unigram
    # One long text is another matter: the neighbours across document borders count.
    assert len(NeighbourCountBaseline.fit(whole.input_ids, VOCAB).both.contexts) != len(fitted[0].both.contexts)


def test_small_buffers_merge_exactly():
    text = np.random.default_rng(1).integers(0, 6, size=500)
    whole = counts._PairCounts(10**6)
    whole.add(text)
    pieces = counts._PairCounts(10**6, buffer_size=7)
    for start in range(0, 500, 5):
        pieces.add(text[start : start + 5])
    whole.merge()
    pieces.merge()
    np.testing.assert_array_equal(pieces.keys, np.arange(6))
    np.testing.assert_array_equal(pieces.counts, np.bincount(text))
    np.testing.assert_array_equal(pieces.counts, whole.counts)


def test_a_table_that_grows_too_large_drops_single_contexts_and_says_so(caplog):
    text = np.array([3, 4, 5, 3, 4, 5, 8, 7, 6, 8])
    with caplog.at_level(logging.WARNING):
        baseline = NeighbourCountBaseline.fit(text, VOCAB, max_entries=4)
    assert "seen once are dropped" in caplog.text
    masked, labels = np.array([3, MASK, 5]), np.array([-100, 4, -100])
    assert baseline.predict(masked, labels, MASK).tolist() == [4]
    assert len(baseline.both.contexts) == 1  # only 3 _ 5 was seen twice


def test_visible_tokens_can_be_ignored():
    baseline = NeighbourCountBaseline.fit(np.array([3, 4, 5, 3, 4, 5]), VOCAB)
    shown, labels = np.array([[3, 8, 5]]), np.array([[-100, 4, -100]])
    assert baseline.predict(shown, labels, MASK).tolist() == [8]
    assert baseline.predict(shown, labels, MASK, copy_visible=False).tolist() == [4]
    assert baseline.accuracy(shown, labels, MASK) == 0.0


def test_unigram():
    baseline = UnigramBaseline.fit([np.array([3, 3, 4, 0, 0, 0]), np.array([4, 4])], VOCAB, SPECIAL)
    assert (baseline.token, baseline.share) == (4, 3 / 5)
    labels = np.array([[-100, 4, 3], [4, -100, -100]])
    assert baseline.correct(labels).tolist() == [True, False, True]
    assert baseline.accuracy(labels) == 2 / 3


@pytest.mark.parametrize("kind", [UnigramBaseline, NeighbourCountBaseline])
def test_bad_text(kind):
    with pytest.raises(ValueError, match="token id 9 is outside a vocabulary of 9"):
        kind.fit(np.array([3, 9]), VOCAB)
    with pytest.raises(ValueError, match="no token to count"):
        kind.fit(np.array([0, 1, 2]), VOCAB, SPECIAL)
    with pytest.raises(ValueError, match="no token to count"):
        kind.fit([], VOCAB)


def test_a_vocabulary_too_large_for_the_keys():
    with pytest.raises(ValueError, match="too large for the keys"):
        NeighbourCountBaseline.fit(np.array([3]), 3_000_000)
