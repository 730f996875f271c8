"""What holds for every masking scheme and any rows, odd ones too: hypothesis draws rows, the seed and the step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_cases import CLS, MASK, NUM_WORDS, SEP, SPECIAL, word_tokenizer

from rexbert_hf.masking import (
    AdaptiveHybridMaskingCollator,
    GuidedMLMCollator,
    MLMCollator,
    NounPhraseCollator,
    PhraseMaskingCollator,
    SpanMaskingCollator,
)

TOKENIZER = word_tokenizer()
SCHEMES = {
    "plain": MLMCollator,
    "whole word": lambda *a, **k: MLMCollator(*a, whole_word=True, **k),
    "guided": GuidedMLMCollator,
    "spans": SpanMaskingCollator,
    "phrases": PhraseMaskingCollator,
    "noun phrases": NounPhraseCollator,
    "adaptive": AdaptiveHybridMaskingCollator,
}


@st.composite
def row(draw):
    """[CLS] words of 1 to 4 tokens [SEP], now and then none; spans anywhere between, overlapping or not."""
    sizes = draw(st.lists(st.integers(1, 4), max_size=12))
    body = draw(
        st.lists(st.integers(len(SPECIAL), len(SPECIAL) + NUM_WORDS - 1), min_size=sum(sizes), max_size=sum(sizes))
    )
    words = np.repeat(np.arange(len(sizes)), sizes)
    places = st.tuples(st.integers(1, max(1, len(body))), st.integers(1, 5), st.integers(0, 10), st.integers(0, 9))
    spans = sorted(draw(st.lists(places, max_size=5))) if body else []
    return {
        "input_ids": np.array([CLS, *body, SEP]),
        "word_ids": np.array([-1, *words, -1]),
        "span_start": np.array([start for start, *_ in spans], dtype=np.int64),
        "span_end": np.array([min(start + size, len(body) + 1) for start, size, *_ in spans], dtype=np.int64),
        "span_score": np.array([score / 10 for *_, score, _ in spans]),
        "span_kind": np.array([kind for *_, kind in spans], dtype=np.int64),
    }  # fmt: skip


rows_of = st.lists(row(), min_size=1, max_size=6)
shares = st.sampled_from([0.05, 0.15, 0.3, 0.5])


def selections(out):
    """(input_ids, labels) of each selection that a batch holds."""
    yield out["input_ids"], out["labels"]
    if "phrase_input_ids" in out:
        yield out["phrase_input_ids"], out["phrase_labels"]


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "padded"])
@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=25)
@given(rows=rows_of, share=shares, seed=st.integers(0, 5), step=st.integers(0, 10**6))
def test_of_any_rows(scheme, flat, rows, share, seed, step):
    def collate():
        return SCHEMES[scheme](TOKENIZER, mlm_probability=share, flat=flat, seed=seed)(
            [r | {"step": step} for r in rows]
        )

    out = collate()
    clean = np.concatenate([r["input_ids"] for r in rows])
    words = np.concatenate([r["word_ids"] for r in rows])
    for ids, labels in selections(out):
        if not flat:
            real = out["attention_mask"].bool()
            assert (labels[~real] == -100).all()
            ids, labels = ids[real], labels[real]
        ids, labels = ids.reshape(-1).numpy(), labels.reshape(-1).numpy()
        masked = labels != -100
        assert len(ids) == len(clean)
        np.testing.assert_array_equal(labels[masked], clean[masked])
        np.testing.assert_array_equal(ids[~masked], clean[~masked])
        assert not masked[words < 0].any(), "a special token was masked"
        new = ids[masked & (ids != clean)]
        assert ((new == MASK) | (new >= len(SPECIAL))).all(), "a random replacement is a special token"
    again = collate()
    for (ids, labels), (ids_2, labels_2) in zip(selections(out), selections(again), strict=True):
        assert ids.tolist() == ids_2.tolist()
        assert labels.tolist() == labels_2.tolist()


@settings(max_examples=40)
@given(rows=rows_of, share=shares, seed=st.integers(0, 5))
def test_whole_words_are_masked_whole(rows, share, seed):
    out = MLMCollator(TOKENIZER, mlm_probability=share, flat=True, whole_word=True, seed=seed)(rows)
    masked = (out["labels"][0] != -100).numpy()
    start = 0
    for found in rows:
        words, part = found["word_ids"], masked[start : start + len(found["word_ids"])]
        for word in range(int(words.max(initial=-1)) + 1):
            assert len(set(part[words == word].tolist())) == 1
        start += len(words)
