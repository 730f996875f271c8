from __future__ import annotations

import math

import numpy as np
import pytest
from masking_cases import assert_same, eligible_of, masked_of, random_rows

from rexbert_hf import SpanMaskingCollator


def runs_of(masked):
    """Lengths of the runs of True."""
    borders = np.flatnonzero(np.diff(masked.astype(int), prepend=0, append=0))
    return borders[1::2] - borders[::2]


def long_rows(words=2000, count=30, tokens=2, step=0):
    row = {"input_ids": np.full(words * tokens, 9), "word_ids": np.repeat(np.arange(words), tokens), "step": step}
    return [row] * count


def test_lengths_are_geometric_and_the_budget_is_met(tokenizer):
    """60,000 words a step in rows so long that their borders cut next to nothing."""
    collator = SpanMaskingCollator(tokenizer, flat=True)
    lengths, shares = [], []
    for step in range(10):
        masked = masked_of(collator(long_rows(step=step))).reshape(-1, 2)
        assert (masked[:, 0] == masked[:, 1]).all(), "words are masked whole"
        rows = masked[:, 0].reshape(30, 2000)
        lengths += [run for row in rows for run in runs_of(row)]
        shares.append(masked.mean())
    law = 0.8 ** np.arange(10)
    law /= law.sum()
    assert collator.mean_words == pytest.approx((law * np.arange(1, 11)).sum()) == pytest.approx(3.797, abs=1e-3)
    found = np.bincount(lengths, minlength=12)[1:] / len(lengths)
    assert found[10:].sum() == 0, "no span is longer than ten words"
    # 30 borders cut about 5 of 2,400 spans a step; the rest is sampling.
    assert np.abs(found[:10] - law).max() < 5 * math.sqrt(0.22 * 0.78 / len(lengths)) + 0.002
    # A share of 60,000 words varies as one of 60,000 / 3.8 spans of mean length, somewhat more as lengths differ.
    assert abs(np.mean(shares) - 0.15) < 5 * math.sqrt(0.15 * 0.85 * 8 / 600_000)


def test_short_texts_get_their_budget_too(tokenizer):
    rows = random_rows(300, seed=3, mean_length=12)
    eligible = eligible_of(rows)
    collator = SpanMaskingCollator(tokenizer, flat=True)
    shares = []
    for step in range(100):
        masked = masked_of(collator([{**row, "step": step} for row in rows]))
        assert not masked[~eligible].any()
        shares.append(masked.sum() / eligible.sum())
    assert abs(np.mean(shares) - 0.15) < 5 * np.std(shares) / math.sqrt(len(shares))


def test_every_word_of_a_text_has_the_same_probability(tokenizer):
    """The first words and the last as well: starts are uniform."""
    rows = [{"input_ids": np.full(12, 9), "word_ids": np.arange(12)}] * 50
    collator = SpanMaskingCollator(tokenizer, flat=True)
    counts = sum(
        masked_of(collator([{**row, "step": step} for row in rows])).reshape(50, 12).sum(0) for step in range(400)
    )
    assert np.abs(counts / 20_000 - 0.15).max() < 5 * math.sqrt(0.15 * 0.85 * 2 / 20_000)


def test_words_of_several_tokens_and_special_tokens(tokenizer):
    rows = random_rows(200, seed=5)
    masked, at = masked_of(SpanMaskingCollator(tokenizer, 0.3, flat=True)(rows)), 0
    for row in rows:
        mine = masked[at : at + len(row["input_ids"])]
        at += len(mine)
        assert not mine[row["word_ids"] < 0].any()
        for word in range(int(row["word_ids"].max()) + 1):
            assert len(set(mine[row["word_ids"] == word].tolist())) == 1


def test_one_draw_a_span(tokenizer):
    options = {"mask_replace_prob": 0.5, "random_replace_prob": 0.0, "flat": True}
    for per_span in (True, False):
        out = SpanMaskingCollator(tokenizer, per_span=per_span, **options)(long_rows(tokens=1))
        masked, ids = masked_of(out).reshape(30, -1), out["input_ids"][0].numpy().reshape(30, -1)
        borders = np.diff(masked.astype(int), axis=1, prepend=0) == 1
        span = np.cumsum(borders.ravel()).reshape(borders.shape)
        fates = [set((ids[masked & (span == n)] == 4).tolist()) for n in range(1, 300)]
        assert all(len(fate) == 1 for fate in fates) == per_span


def test_selections_are_pure(tokenizer):
    rows = random_rows(30, step=4)
    assert_same(SpanMaskingCollator(tokenizer, seed=1)(rows), SpanMaskingCollator(tokenizer, seed=1)(rows))
    first, second = (masked_of(SpanMaskingCollator(tokenizer, seed=seed)(rows)) for seed in (1, 2))
    assert (first != second).any()


@pytest.mark.parametrize(("probability", "longest"), [(0.5, 1), (0.15, 1), (0.4, 3)])
def test_dense_and_short_spans(tokenizer, probability, longest):
    collator = SpanMaskingCollator(tokenizer, probability, max_words=longest, flat=True)
    masked = masked_of(collator(long_rows(tokens=1)))
    assert abs(masked.mean() - probability) < 5 * math.sqrt(probability * 4 / len(masked))
    assert max(max(runs_of(row)) for row in masked.reshape(30, -1)) <= longest


def test_rows_of_special_tokens_only(tokenizer):
    out = SpanMaskingCollator(tokenizer)([{"input_ids": [2, 3], "word_ids": [-1, -1]}])
    assert (out["labels"] == -100).all()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"geometric_p": 0.0}, "geometric_p must lie between 0 and 1"),
        ({"max_words": 0}, "max_words must be at least 1"),
        ({"mlm_probability": 0.9}, r"leaves less than a word between spans of 3\.8 words"),
    ],
)
def test_options_out_of_range(tokenizer, options, problem):
    with pytest.raises(ValueError, match=problem):
        SpanMaskingCollator(tokenizer, **options)
