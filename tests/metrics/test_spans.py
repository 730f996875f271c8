"""Strict spans: against seqeval's strict mode on random tags, and against answers written down by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.metrics.spans import (
    precision_recall_f1,
    span_counts,
    spans_of_tags,
    tags_of_spans,
)

PREFIXES = {"IOB2": "BIO", "BIO": "BIO", "IOBES": "BIOES", "BILOU": "BIOLU"}


def tag_sequences(scheme: str, kinds: tuple[str, ...] = ("a", "b")) -> st.SearchStrategy:
    tags = ["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] if prefix != "O" for kind in kinds)]
    return st.lists(st.sampled_from(tags), max_size=12)


@st.composite
def corpora(draw, scheme: str):
    lengths = draw(st.lists(st.integers(1, 10), min_size=1, max_size=6))
    fixed = [st.lists(st.sampled_from(_tags(scheme)), min_size=length, max_size=length) for length in lengths]
    return [draw(one) for one in fixed], [draw(one) for one in fixed]


def _tags(scheme: str) -> list[str]:
    return ["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] if prefix != "O" for kind in "ab")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheme", ["IOB2", "IOBES", "BILOU"])
def test_equal_to_seqeval_strict(scheme):
    """Also for tags that break the scheme, which is where readings of "strict" part."""
    metrics, schemes = pytest.importorskip("seqeval.metrics.v1"), pytest.importorskip("seqeval.scheme")

    @settings(max_examples=120)
    @given(corpora(scheme))
    def check(corpus):
        gold, predicted = corpus
        expected = metrics.precision_recall_fscore_support(
            gold, predicted, average="micro", scheme=getattr(schemes, scheme), zero_division=0
        )
        true = [spans_of_tags(tags, scheme) for tags in gold]
        found = [spans_of_tags(tags, scheme) for tags in predicted]
        rates = precision_recall_f1(span_counts(true, found).sum(axis=0))
        assert [rates.precision, rates.recall, rates.f1] == pytest.approx(expected[:3], abs=1e-9)

    check()


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("BIO", "O O O", []),
        ("BIO", "I I O", []),  # no B: no span
        ("BIO", "B I I", [(0, 3, "")]),  # up to the end
        ("BIO", "B B I", [(0, 1, ""), (1, 3, "")]),  # neighbours
        ("BIO", "B O I", [(0, 1, "")]),  # a torn span is its first part
        ("IOB2", "B-x I-y I-y", [(0, 1, "x")]),  # a change of type ends it, and I-y starts none
        ("IOB2", "B-x-y I-x-y", [(0, 2, "x-y")]),  # a dash within a type
        ("IOBES", "B-x I-x O", []),  # never closed
        ("IOBES", "B-x E-y", []),
        ("IOBES", "B-x E-x E-x", [(0, 2, "x")]),
        ("IOBES", "I-x E-x S-y", [(2, 3, "y")]),
        ("IOBES", "B-x S-x", [(1, 2, "x")]),
        ("BILOU", "B-x I-x L-x U-y", [(0, 3, "x"), (3, 4, "y")]),
        ("BIO", "", []),
    ],
)
def test_known_answers(scheme, tags, expected):
    assert spans_of_tags(tags.split(), scheme) == expected


@given(tag_sequences("IOB2"))
def test_tags_of_spans_and_back(tags):
    """Writing the spans down as tags and reading them again changes nothing."""
    spans = spans_of_tags(tags)
    assert spans_of_tags(tags_of_spans(spans, len(tags))) == spans


@given(tag_sequences("IOB2"), tag_sequences("IOB2"))
def test_counts_are_symmetric_and_bounded(first, second):
    gold, predicted = spans_of_tags(first), spans_of_tags(second)
    right, found, true = span_counts([gold], [predicted])[0]
    assert span_counts([predicted], [gold])[0].tolist() == [right, true, found]
    assert 0 <= right <= min(found, true)
    assert span_counts([gold], [gold])[0].tolist() == [true, true, true]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_f1_lies_between_precision_and_recall(rows):
    counts = np.array([(right, right + wrong, right + missed) for right, wrong, missed in rows])
    rates = precision_recall_f1(counts.sum(axis=0))
    low, high = sorted([float(rates.precision), float(rates.recall)])
    assert low - 1e-12 <= float(rates.f1) <= high + 1e-12


def test_many_resamples_at_once():
    counts = np.array([[1, 2, 1], [0, 0, 2], [2, 2, 2]])
    draws = np.array([[0, 0, 1], [2, 2, 2], [1, 1, 1]])
    together = precision_recall_f1(counts[draws].sum(axis=1)).f1
    assert together.tolist() == [float(precision_recall_f1(counts[draw].sum(axis=0)).f1) for draw in draws]
    assert together.tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("tags", "scheme", "message"),
    [
        (["O", "X-a"], "IOB2", "tag 1 is 'X-a'"),
        (["E-a"], "IOB2", "tag 0 is 'E-a'"),
        (["B_a"], "IOB2", "tag 0 is 'B_a'"),
        (["B-"], "IOB2", "tag 0 is 'B-'"),
        ([""], "IOB2", "tag 0 is ''"),
        (["O"], "IOB3", "no tagging scheme 'IOB3'"),
    ],
)
def test_tags_outside_the_scheme_are_refused(tags, scheme, message):
    with pytest.raises(ValueError, match=message):
        spans_of_tags(tags, scheme)


def test_spans_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit a sequence of 3"):
        tags_of_spans([(2, 4, "x")], 3)
    with pytest.raises(ValueError, match="overlaps"):
        tags_of_spans([(0, 2, "x"), (1, 3, "y")], 3)
    with pytest.raises(ValueError, match="1 gold sequences but 2 predicted"):
        span_counts([[]], [[], []])
