from __future__ import annotations

import numpy as np
import pytest
from masking_cases import MASK, eligible_of, masked_of, random_rows

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking import MLMCollator
from rexbert_hf.masking.units import number_units, word_starts


@pytest.mark.parametrize("probability", [0.05, 0.15, 0.3, 0.7])
@pytest.mark.parametrize("whole_word", [False, True])
def test_budget_is_a_share_of_the_tokens_that_are_not_special(tokenizer, whole_word, probability):
    rows = random_rows(1500, seed=5)
    eligible = eligible_of(rows)
    masked = masked_of(MLMCollator(tokenizer, probability, whole_word=whole_word, flat=True)(rows))
    batch = RowBatch.from_rows(rows)
    sizes = np.bincount(number_units(word_starts(batch, eligible))[eligible]) if whole_word else np.ones(eligible.sum())
    # Independent units: the variance of the masked count is p (1 - p) times the sum of squared sizes.
    deviation = np.sqrt(probability * (1 - probability) * (sizes.astype(float) ** 2).sum())
    assert abs(masked.sum() - probability * eligible.sum()) < 5 * deviation
    assert 5 * deviation < 0.15 * probability * eligible.sum()


@pytest.mark.parametrize("options", [{}, {"whole_word": True}])
def test_special_tokens_are_never_masked_nor_drawn(tokenizer, options):
    for step in range(5):
        rows = random_rows(100, seed=step, step=step, words=bool(options))
        out = MLMCollator(tokenizer, 0.9, mask_replace_prob=0.5, random_replace_prob=0.5, flat=True, **options)(rows)
        masked, eligible = masked_of(out), eligible_of(rows)
        assert not (masked & ~eligible).any()
        now = out["input_ids"][0].numpy()
        assert (now[masked] >= MASK).all()
        assert (now[~eligible] == RowBatch.from_rows(rows).input_ids[~eligible]).all()


def test_a_special_token_inside_the_text_is_not_masked(tokenizer):
    """[SEP] typed by a user keeps a word id in some tokenizers; it stays special."""
    row = {"input_ids": [2, 9, 3, 9, 3], "word_ids": [-1, 0, 1, 2, -1]}
    inside = {"input_ids": [2, 9, 3, 9, 3], "word_ids": [-1, 0, 0, 0, -1]}
    out = MLMCollator(tokenizer, 0.999, whole_word=True, flat=True)([row, inside, {**row}])
    assert masked_of(out).tolist() == [False, True, False, True, False] * 3


def test_word_id_minus_one_protects_ordinary_tokens(tokenizer):
    out = MLMCollator(tokenizer, 0.999, flat=True)([{"input_ids": [9, 9, 9], "word_ids": [0, -1, 1]}])
    assert masked_of(out).tolist() == [True, False, True]


def test_words_are_masked_whole(tokenizer):
    rows = random_rows(300, seed=1)
    masked = masked_of(MLMCollator(tokenizer, 0.3, whole_word=True, flat=True)(rows))
    end = 0
    shares = []
    for row in rows:
        start, end = end, end + len(row["input_ids"])
        mine, words = masked[start:end], row["word_ids"]
        for word in range(words.max() + 1):
            assert len(set(mine[words == word].tolist())) == 1
            shares.append(mine[words == word][0])
    # Words are drawn one by one, each with the same probability whatever its length.
    assert abs(np.mean(shares) - 0.3) < 5 * np.sqrt(0.21 / len(shares))


def test_neighbouring_words_and_rows_are_independent(tokenizer):
    """The last word of a row and the first of the next have the same word id and no special token between them."""
    rows = [{"input_ids": [9, 9], "word_ids": [0, 0]}] * 4000
    masked = masked_of(MLMCollator(tokenizer, 0.5, whole_word=True, flat=True)(rows)).reshape(-1, 2)
    assert (masked[:, 0] == masked[:, 1]).all()
    both = (masked[:-1, 0] & masked[1:, 0]).mean()
    assert abs(both - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_whole_word_equals_tokens_where_words_are_tokens(tokenizer):
    rows = [{"input_ids": np.full(500, 9), "word_ids": np.arange(500), "step": 2}]
    plain = masked_of(MLMCollator(tokenizer, flat=True)(rows))
    assert (plain == masked_of(MLMCollator(tokenizer, flat=True, whole_word=True)(rows))).all()


def test_whole_word_needs_word_ids(tokenizer):
    with pytest.raises(ValueError, match=r"needs 'word_ids'.*remove_unused_columns=False.*whole_word=False"):
        MLMCollator(tokenizer, whole_word=True)([{"input_ids": [2, 9, 3]}])


def test_rows_with_input_ids_alone(tokenizer):
    rows = random_rows(300, words=False)
    masked, eligible = masked_of(MLMCollator(tokenizer, 0.3, flat=True)(rows)), eligible_of(rows)
    assert abs(masked.sum() - 0.3 * eligible.sum()) < 5 * np.sqrt(0.21 * eligible.sum())


def test_every_place_has_the_same_probability(tokenizer):
    """Over many steps each token of a row is masked about as often as any other."""
    row = random_rows(1, seed=8)[0]
    eligible = eligible_of([row])
    collator = MLMCollator(tokenizer, 0.3, whole_word=True, flat=True)
    counts = sum(masked_of(collator([{**row, "step": step}])).astype(int) for step in range(2000))
    assert not counts[~eligible].any()
    # 5 standard deviations of a binomial count over at most 120 places.
    assert np.abs(counts[eligible] - 600).max() < 5 * np.sqrt(2000 * 0.21)
