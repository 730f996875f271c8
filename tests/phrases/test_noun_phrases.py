"""Noun phrases of the light chunker on sentences read by hand, and spaCy's where it is there."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_cases import TEXTS, plain_units

from rexbert_hf.phrases import noun_phrases as module
from rexbert_hf.phrases.noun_phrases import NounPhraseFinder, noun_phrases
from rexbert_hf.phrases.word_classes import ADJECTIVE, GERUND, NOUN, NUMBER, OTHER, PAST, SUBJECT, VERB, word_class

SENTENCES = [
    ("I bought this top for date night.", ["top", "date night"]),
    ("The battery lasts long and it is charging.", ["battery"]),
    ("broad shoulders, tapered legs and a rounded hem", ["broad shoulders", "tapered legs", "rounded hem"]),
    ("It worked great with my noise-cancelling headphones", ["noise-cancelling headphones"]),
    ("2 USB cables for the 16GB memory card", ["USB cables", "16GB memory card"]),
    ("quickly arrived, very nicely wrapped", []),
    ("the look of it", ["look"]),
    ("We were pleased. Would buy again!", []),
    ("the LED's colour temperature (warm white)", ["LED's colour temperature"]),
    ("\u65e0\u7ebf\u8033\u673a \u0431\u0430\u0442\u0430\u0440\u0435\u044f", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentences(text, expected):
    assert [text[start:end] for start, end in noun_phrases(text)] == expected


def test_many_texts_are_each_alone():
    finder = NounPhraseFinder("light")
    texts = [text for text, _ in SENTENCES]
    assert finder(texts) == [noun_phrases(text) for text in texts]
    assert pickle.loads(pickle.dumps(finder))(texts) == finder(texts)
    assert finder([]) == []


def test_long_runs_keep_their_last_words():
    title = "Samsung Galaxy Ultra Android Cell Phone Case"
    assert [title[start:end] for start, end in noun_phrases(title)] == ["Galaxy Ultra Android Cell Phone Case"]
    (short,) = NounPhraseFinder("light", max_words=2)([title])
    assert [title[start:end] for start, end in short] == ["Phone Case"]


@settings(max_examples=200, deadline=None)
@given(
    TEXTS | st.lists(st.sampled_from(["the", "red", "lamp", "12", ",", "used", "x3", "it", "lighting"])).map(" ".join)
)
def test_phrases_are_whole_units_in_order(text):
    starts = {start for start, _, _ in plain_units(text)}
    ends = {end for _, end, _ in plain_units(text)}
    last = 0
    for start, end in noun_phrases(text):
        assert last <= start < end
        assert start in starts
        assert end in ends
        last = end


def test_word_classes():
    expected = {
        "waterproof": ADJECTIVE, "rechargeable": ADJECTIVE, "16gb": ADJECTIVE, "cable": NOUN, "clothing": NOUN,
        "family": NOUN, "speed": NOUN, "quickly": OTHER, "charging": GERUND, "padded": PAST, "3.5": NUMBER,
        "is": SUBJECT, "he": SUBJECT, "bought": VERB, "&": OTHER, "": OTHER, "\u043b\u0430\u043c\u043f\u0430": OTHER,
    }  # fmt: skip
    assert {word: word_class(word) for word in expected} == expected


def test_methods():
    with pytest.raises(ValueError, match="one of auto, spacy, light"):
        NounPhraseFinder("none")
    light = NounPhraseFinder("light")
    assert light.fingerprint == NounPhraseFinder("light").fingerprint
    assert light.fingerprint != NounPhraseFinder("light", max_words=3).fingerprint


def test_without_a_model(monkeypatch):
    monkeypatch.setattr(module, "spacy_model", lambda: None)
    assert NounPhraseFinder("auto").method == "light"
    assert NounPhraseFinder("auto").fingerprint == NounPhraseFinder("light").fingerprint
    with pytest.raises(ValueError, match="no English spaCy model is installed"):
        NounPhraseFinder("spacy")


def test_spacy_chunks_lose_their_articles(monkeypatch):
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import Doc

    nlp = spacy.blank("en")
    words = ["It", "has", "the", "big", "red", "lamp", "and", "7", "bulbs"]
    tags = ["PRON", "VERB", "DET", "ADJ", "ADJ", "NOUN", "CCONJ", "NUM", "NOUN"]
    heads, relations = (
        [1, 1, 5, 5, 5, 1, 5, 8, 5],
        ["nsubj", "ROOT", "det", "amod", "amod", "dobj", "cc", "nummod", "conj"],
    )
    doc = Doc(nlp.vocab, words, pos=tags, heads=heads, deps=relations)

    class Pipeline:
        def pipe(self, texts):
            return [doc for _ in texts]

    monkeypatch.setattr(module, "spacy_model", lambda: "en_core_web_sm")
    monkeypatch.setattr(module, "_version", lambda package: "1.0")
    monkeypatch.setattr(module, "_pipeline", lambda model: Pipeline())
    finder = NounPhraseFinder("auto")
    assert finder.method == "spacy"
    assert finder.fingerprint != NounPhraseFinder("light").fingerprint
    assert [[doc.text[start:end] for start, end in found] for found in finder([doc.text])] == [
        ["big red lamp", "bulbs"]
    ]
