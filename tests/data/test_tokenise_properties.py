"""Word alignment of any Unicode text, with three kinds of tokenizer: against the tokenizer's own offsets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "masking"))

from masking_cases import trained_tokenizer

from rexbert_hf.data import tokenise
from rexbert_hf.data.encode import white_space_words

KINDS = ("wordpiece", "bpe", "unigram")
TOKENIZERS = {kind: trained_tokenizer(kind) for kind in KINDS}
ODD = [
    "\u0301",
    "\u00a0",
    "\u200d",
    "\u2028",
    "\ufeff",
    "\U0001f469\u200d\U0001f4bb",
    "\u05e0\u05e2",
    "\u0e01\u0e33",
    "\u00df",
    "5\u00bd",
    "x-y",
]
spaced = st.text("ab \t\n", max_size=4)
odd = st.sampled_from(ODD)
texts = st.one_of(st.text(min_size=1, max_size=60), st.lists(st.one_of(odd, spaced), max_size=20).map("".join))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(found=st.lists(texts, min_size=1, max_size=4))
@example(found=["\ud800 lamp", "a"])
@example(found=["e\u0301" * 40])
@example(found=["\u202ered lamp\u202c"])
def test_words_are_those_of_the_tokenizer(kind, found):
    tokenizer = TOKENIZERS[kind]
    if not any(text.strip() for text in found):
        return
    kept = [text.encode("utf-8", "replace").decode() for text in found if text.strip()]
    encodings = [e for e in tokenizer.backend_tokenizer.encode_batch(kept) if len(e) > 2]
    if not encodings:
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            tokenise(found, tokenizer)
        return
    store = tokenise(found, tokenizer)
    assert len(store) == len(encodings)
    for number, encoding in enumerate(encodings):
        row = store[number]
        ids, words = np.asarray(row["input_ids"]), np.asarray(row["word_ids"])
        assert ids.tolist() == encoding.ids
        special = np.isin(ids, tokenizer.all_special_ids)
        assert (words[special] == -1).all()
        expected = np.array([-1 if word is None else word for word in encoding.word_ids])
        np.testing.assert_array_equal(words[~special], expected[~special])
        assert (np.diff(words[~special]) >= 0).all()


@settings(max_examples=100)
@given(text=st.text(st.sampled_from("ab \t\n\u3000\u00a0c"), min_size=1, max_size=30), data=st.data())
def test_white_space_words_against_splitting(text, data):
    """Any cut into tokens: a token's word is the number of words that began up to its last character."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text)), max_size=8)) | {len(text)})
    begins = [i for i, c in enumerate(text) if not c.isspace() and (i == 0 or text[i - 1].isspace())]
    expected = [max(0, sum(begin <= end - 1 for begin in begins) - 1) for end in cuts]
    assert white_space_words(text, np.array(cuts)).tolist() == expected


def test_a_word_of_a_megabyte():
    tokenizer = TOKENIZERS["bpe"]
    store = tokenise(["stainless" * 120_000, "a lamp"], tokenizer)
    assert len(store) == 2
    assert set(np.asarray(store[0]["word_ids"]).tolist()) <= {-1, 0}
    assert store.num_tokens > 120_000
