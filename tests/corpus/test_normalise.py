from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.corpus.normalise import CHARS_PER_WORD, Normaliser, normalise_texts

WORDS = st.lists(st.text(alphabet="abcXYZ09'", min_size=1, max_size=8), min_size=0, max_size=30)
ANY_TEXT = st.text(st.characters(codec=None), max_size=200)  # lone surrogates included


def test_what_becomes_of_signs_digits_and_case():
    text = "Only $12.99!\r\nDON'T wait\u2014it\u2019s 50% off & \u00a35.\t__label__x </s> \u20ac7 caf\u00c9 \U0001f600"
    assert Normaliser("shape")(text).split() == [
        *("only", "$00", "00", "dont", "wait", "its", "00%", "off", "&", "\u00a30"),
        *("label", "x", "s", "\u20ac0", "caf\u00e9", "\U0001f600"),
    ]
    assert "$12 99" in Normaliser()(text)


def test_characters_of_scripts_without_spaces_are_words():
    assert Normaliser()("iPhone\u624b\u673a\u58f3\u3002").split() == ["iphone", "\u624b", "\u673a", "\u58f3"]


@settings(max_examples=300)
@given(ANY_TEXT, st.sampled_from(["keep", "shape"]))
def test_any_text_becomes_one_line_that_cannot_be_taken_for_a_label(text, digits):
    line = Normaliser(digits)(text)
    line.encode("utf-8")
    # What fastText takes for the end of a line or of a word, but for the space.
    assert not set(line) & set("\n\r\t\v\f\0")
    assert "_" not in line
    assert "</s>" not in line
    assert Normaliser(digits)(line).split() == line.split()


@given(WORDS, st.integers(1, 20))
def test_no_more_words_than_asked_for_and_the_first_ones(words, most):
    whole = Normaliser()(" ".join(words)).split()
    cut = Normaliser(max_words=most)(" ".join(words)).split()
    assert len(cut) <= most
    assert cut == whole[: len(cut)]
    if len(" ".join(words)) <= CHARS_PER_WORD * most:
        assert cut == whole[:most]


@given(st.lists(ANY_TEXT, max_size=5))
def test_a_batch_is_its_texts(texts):
    assert normalise_texts(texts) == [Normaliser()(text) for text in texts]


@pytest.mark.parametrize("word", ["x" * 50_000_000, "\u00e9 " * 1_000_000])
def test_an_endless_line_is_cut_before_it_is_looked_at(word):
    assert len(Normaliser(max_words=100)(word)) <= CHARS_PER_WORD * 100


def test_shapes_of_ascii_and_other_text_agree():
    ascii_only = "Mug (red), 0.5 l; `new`! 12-pack/#3 a_b"
    assert Normaliser()(ascii_only) == Normaliser()(ascii_only + "\u2014").rstrip()


@pytest.mark.parametrize("given_", [{"digits": "drop"}, {"max_words": 0}])
def test_wrong_settings_are_refused(given_):
    with pytest.raises(ValueError, match=next(iter(given_))):
        Normaliser(**given_)


def test_settings_travel_and_unknown_ones_are_refused():
    normaliser = Normaliser("keep", 7)
    assert Normaliser.from_dict(normaliser.as_dict()) == normaliser
    with pytest.raises(ValueError, match="stemming"):
        Normaliser.from_dict({"digits": "keep", "stemming": True})
