"""Shares of languages against the formula written out, and texts that are drawn by them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.data.languages import balanced_texts, check_language, fertility, language_shares
from rexbert_hf.data.vocabulary import train_tokenizer

sizes_of = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any)


@settings(max_examples=60, deadline=None)
@given(sizes=sizes_of, temperature=st.floats(0, 2))
def test_shares_are_powers_of_the_sizes(sizes, temperature):
    shares = language_shares({str(i): size for i, size in enumerate(sizes)}, temperature)
    powers = [size**temperature if size else 0.0 for size in sizes]
    assert list(shares.values()) == pytest.approx([power / sum(powers) for power in powers], rel=1e-9, abs=1e-12)


def test_the_shares_of_sizes_no_power_can_hold():
    shares = language_shares({"en": 1e12, "id": 1e6}, 60.0)
    assert shares["en"] == 1.0
    assert shares["id"] == pytest.approx(0.0, abs=1e-300)


@pytest.mark.parametrize(
    ("sizes", "temperature", "message"),
    [({}, 1, "languages need text"), ({"en": 0}, 0.5, "languages need text"), ({"en": 1}, -1, "at least 0; got -1")],
)
def test_shares_of_nothing_are_refused(sizes, temperature, message):
    with pytest.raises(ValueError, match=message):
        language_shares(sizes, temperature)


def test_texts_get_their_share_of_the_characters_and_small_languages_repeat():
    texts = {"en": [f"text {i:05d}" for i in range(9_000)], "id": [f"teks {i:05d}" for i in range(1_000)]}
    drawn = Counter(text for text in balanced_texts(texts, 0.5))
    total = sum(drawn.values())
    indonesian = {text: count for text, count in drawn.items() if text.startswith("teks")}
    assert total == 10_000
    assert sum(indonesian.values()) / total == pytest.approx(0.25, abs=0.001)  # sqrt(1000) : sqrt(9000)
    assert len(indonesian) == 1_000
    assert set(indonesian.values()) <= {2, 3}  # 2,500 draws of 1,000, evenly
    assert all(count == 1 for text, count in drawn.items() if text.startswith("text"))


def test_at_temperature_one_every_text_is_drawn_once():
    texts = {"en": ["a b c", "d"], "id": ["e f"]}
    assert sorted(balanced_texts(texts, 1.0)) == ["a b c", "d", "e f"]


@pytest.mark.parametrize("code", ["en", "zh-Hans", "pt_BR", "und", "sr-Latn-RS"])
def test_codes(code):
    assert check_language(code) == code


@pytest.mark.parametrize("code", ["", "e", "english text", "../en", "1", "en/de"])
def test_what_is_no_code(code):
    with pytest.raises(ValueError, match="is no language"):
        check_language(code)


def test_fertility_counts_characters_bytes_and_words():
    tokenizer = train_tokenizer(["red lamp"] * 5, vocab_size=384)
    assert fertility(tokenizer, ["red lamp", "red"]) == {
        "tokens_per_character": 3 / 11,
        "bytes_per_token": 11 / 3,
        "tokens_per_word": 1.0,
        "unknown_share": 0.0,
    }
    chinese = fertility(tokenizer, ["\u53f0\u706f\u5f88\u597d"])
    assert chinese["tokens_per_word"] is None
    assert chinese["tokens_per_character"] == 3.0  # a byte each: nothing of it was learnt
    with pytest.raises(ValueError, match="the texts are empty"):
        fertility(tokenizer, [""])
