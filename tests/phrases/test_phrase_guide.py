"""Phrases and their supplements as spans, through a tokenizer to rows."""

from __future__ import annotations

import pickle
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.phrases import Guide
from rexbert_hf.phrases.matcher import PhraseMatcher
from rexbert_hf.phrases.noun_phrases import noun_phrases
from rexbert_hf.phrases.phrase_guide import NounPhraseGuide, PhraseGuide

POOL = PhraseMatcher(["stainless steel", "lamp", "usb c"], [0.9, 0.5, 0.4])
SENTENCES = st.lists(
    st.sampled_from(["the", "stainless", "steel", "red", "lamp", "shade", "usb-c", "cable", ",", "it", "charging"]),
    max_size=15,
).map(" ".join)


def test_is_a_guide_that_pickles():
    guide = PhraseGuide(POOL, noun_phrases="light")
    assert isinstance(guide, Guide)
    assert isinstance(NounPhraseGuide("light"), Guide)
    text = ["A stainless steel lamp shade for the kitchen table"]
    assert pickle.loads(pickle.dumps(guide))(text) == guide(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(SENTENCES, max_size=4), st.sampled_from(["longest", "all"]), st.integers(0, 3), st.floats(0, 1))
def test_supplements_never_overlap_a_phrase(texts, overlaps, min_phrases, min_share):
    matcher = PhraseMatcher(["stainless steel", "lamp", "red lamp", "usb c"], [0.9, 0.5, 0.8, 0.4], overlaps=overlaps)
    guide = PhraseGuide(matcher, noun_phrases="light", min_phrases=min_phrases, min_share=min_share)
    for text, spans, phrases in zip(texts, guide(texts), matcher.match(texts), strict=True):
        assert [span for span in spans if span[3] == "phrase"] == [(*phrase, "phrase") for phrase in phrases]
        assert spans == sorted(spans, key=lambda span: span[:2])
        supplements = [span for span in spans if span[3] == "noun_phrase"]
        for (start, end, score, _), other in ((one, two) for one in supplements for two in spans if one is not two):
            assert score == 0.4
            assert end <= other[0] or other[1] <= start
        covered = sum(end - start for start, end, _ in phrases)
        few = len(phrases) < min_phrases or covered < min_share * len(text)
        clear = [
            found
            for found in noun_phrases(text)
            if all(found[1] <= start or end <= found[0] for start, end, _ in phrases)
        ]
        assert [span[:2] for span in supplements] == (clear if few else [])


def test_texts_are_counted():
    guide = PhraseGuide(POOL, noun_phrases="light", min_phrases=1, min_share=0.0)
    texts = ["a lamp", "the kitchen table", "it is", "stainless steel and the kitchen table"]
    kinds = [[span[3] for span in spans] for spans in guide(texts)]
    assert kinds == [["phrase"], ["noun_phrase"], [], ["phrase"]]
    expected = {"texts": 4, "phrases": 2, "noun_phrases": 1, "without_phrases": 2, "supplemented": 1, "unmarked": 1}
    assert guide.counts == expected
    guide(texts)
    assert guide.counts == {name: 2 * count for name, count in expected.items()}


def test_without_supplements():
    guide = PhraseGuide(POOL, noun_phrases="none")
    assert guide(["the kitchen table", ""]) == [[], []]
    assert guide([]) == []
    assert guide.counts["unmarked"] == 2


def test_a_pool_has_phrases_and_scores():
    class Pool:
        phrases = ["table lamp", "tea pot"]
        scores = np.array([0.5, 0.25])

    guide = PhraseGuide(Pool(), noun_phrases="light")
    assert guide(["Tea-pot, the desk"]) == [[(0, 7, 0.25, "phrase"), (13, 17, 0.25, "noun_phrase")]]


def test_fingerprint_changes_with_the_pool_and_the_options():
    other = PhraseMatcher(["stainless steel", "lamps", "usb c"], [0.9, 0.5, 0.4])
    rescored = PhraseMatcher(["stainless steel", "lamp", "usb c"], [0.9, 0.5, 0.3])
    guides = [
        PhraseGuide(POOL, noun_phrases="light"),
        PhraseGuide(other, noun_phrases="light"),
        PhraseGuide(rescored, noun_phrases="light"),
        PhraseGuide(POOL, noun_phrases="none"),
        PhraseGuide(POOL, noun_phrases="light", min_phrases=3),
        PhraseGuide(POOL, noun_phrases="light", min_share=0.1),
        NounPhraseGuide("light"),
        NounPhraseGuide("light", score=0.5),
    ]
    assert all(one.fingerprint != two.fingerprint for one, two in combinations(guides, 2))
    used = PhraseGuide(POOL, noun_phrases="light")
    used(["a lamp"])
    assert used.fingerprint == guides[0].fingerprint


def test_bad_options():
    with pytest.raises(ValueError, match="min_share"):
        PhraseGuide(POOL, min_share=1.5)
    with pytest.raises(ValueError, match="min_phrases"):
        PhraseGuide(POOL, min_phrases=-1)
    with pytest.raises(ValueError, match="score of noun phrases"):
        NounPhraseGuide("light", score=2.0)
