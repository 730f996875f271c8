"""Words against a splitter written out character by character, and what must hold of them on any text."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_cases import TEXTS, plain_units, plain_words

from rexbert_hf.phrases.characters import code_tables
from rexbert_hf.phrases.words import (
    KIND_BREAK,
    KIND_SYMBOL,
    KIND_WORD,
    normalise,
    normalise_all,
    split_chunks,
    split_words,
)


def units(texts, **options):
    """What `split_words` finds, in the plain splitter's form."""
    words = split_words(texts, **options)
    found = []
    for first, end in zip(words.offsets[:-1], words.offsets[1:], strict=True):
        assert words.kind[end - 1] == KIND_BREAK
        found.append([(int(words.start[u]), int(words.end[u]), words.text(u)) for u in range(first, end - 1)])
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=5))
def test_units_are_those_of_the_plain_splitter(texts):
    assert units(texts) == [plain_units(text) for text in texts]
    assert units(texts, lower=False) == [plain_units(text, lower=False) for text in texts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Levi\u2019s 501", ["levi's", "501"]),
        ("stainless-steel USB\u2011C", ["stainless", "steel", "usb", "c"]),
        ("Sony - Black", ["sony", "-", "black"]),
        ("great.The 3.5mm 1,000 e.g.", ["great", ".", "the", "3.5mm", "1,000", "e", ".", "g", "."]),
        ("AT&T C++", ["at", "&", "t", "c", "+", "+"]),
        ("'90s rock 'n' roll, kids'", ["'", "90s", "rock", "'", "n", "'", "roll", ",", "kids", "'"]),
        ("\u65e0\u7ebf\u8033\u673a USB", ["\u65e0", "\u7ebf", "\u8033", "\u673a", "usb"]),
        ("soft\u00adware\u200b zero\u200bwidth", ["software", "zero", "width"]),
        ("\u0130stanbul \u039f\u0394\u039f\u03a3", ["istanbul", "\u03bf\u03b4\u03bf\u03c3"]),
        ("\x00a\x1fb\u00a0c\u2028d", ["a", "b", "c", "d"]),
        ("a--b -c d- -", ["a", "-", "-", "b", "-", "c", "d", "-", "-"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_words(text, expected):
    assert [unit for _, _, unit in units([text])[0]] == expected


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_normal_form_is_its_own_and_that_of_any_case_of_lower(text):
    assert normalise(normalise(text)) == normalise(text)
    assert normalise(text.lower()) == normalise(text)
    assert normalise(normalise(text, lower=False), lower=False) == normalise(text, lower=False)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.booleans())
def test_normal_forms_are_the_units_joined(texts, lower):
    expected = [" ".join(plain_words(text, lower)) for text in texts]
    assert normalise_all(texts, lower=lower) == expected
    assert [normalise(text, lower=lower) for text in texts] == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, max_size=8), st.integers(1, 40))
def test_chunks_are_the_whole(texts, chunk_chars):
    whole = split_words(texts)
    parts = list(split_chunks(texts, chunk_chars=chunk_chars))
    assert [first for first, _ in parts] == np.cumsum([0, *(len(p.offsets) - 1 for _, p in parts)])[:-1].tolist()
    for name in ("start", "end", "kind", "hyphen", "hashes", "capital"):
        joined = [getattr(part, name) for _, part in parts] or [getattr(whole, name)[:0]]
        np.testing.assert_array_equal(np.concatenate(joined), getattr(whole, name))


def test_hashes_name_words():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 50_000, 2_000))) for _ in range(10)] + ["ab ba aab aba baa"]
    words = split_words(texts)
    by_hash: dict[int, set[str]] = {}
    for unit in range(len(words)):
        by_hash.setdefault(int(words.hashes[unit]), set()).add(words.text(unit))
    assert all(len(same) == 1 for same in by_hash.values())
    assert sorted(next(iter(same)) for same in by_hash.values()) == sorted(
        {u for t in texts for u in plain_words(t)} | {""}
    )
    assert by_hash[0] == {""}


def test_flags():
    words = split_words(["Blu-Ray - disc, 4K TV"])
    assert [words.text(u) for u in np.flatnonzero(words.hyphen)] == ["ray"]
    assert [words.text(u) for u in np.flatnonzero(words.capital)] == ["blu", "ray", "tv"]
    assert [words.text(u) for u in np.flatnonzero(words.kind == KIND_SYMBOL)] == ["-", ","]
    assert [words.text(u) for u in np.flatnonzero(words.kind == KIND_WORD)] == ["blu", "ray", "disc", "4k", "tv"]


def test_long_text_is_one_chunk():
    text = "word " * 100_000
    ((first, words),) = split_chunks([text])
    assert first == 0
    assert len(words) == 100_001
    assert len(set(words.hashes.tolist())) == 2


def test_tables_keep_words_words():
    tables = code_tables()
    letters = [code for code in range(0x110000) if chr(code).isalnum()]
    assert not [hex(code) for code in letters if not chr(tables.lower[code]).isalnum() and code not in (0x2BC,)]
    marks = [code for code in range(0x300, 0x370) if unicodedata.category(chr(code)) == "Mn"]
    assert all(split_words(["a" + chr(code)]).offsets[1] == 2 for code in marks)
