from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from masking_cases import (
    CLS,
    MASK,
    NUM_WORDS,
    SEP,
    SPECIAL,
    assert_same,
    masked_of,
    originals_of,
    random_rows,
    word_tokenizer,
)

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking import GuidedMLMCollator, MaskingCollator, MLMCollator, Selection, SpanMaskingCollator

ROWS = [
    {"input_ids": [2, 10, 11, 12, 3], "word_ids": [-1, 0, 0, 1, -1]},
    {"input_ids": [2, 20, 3], "word_ids": [-1, 0, -1]},
]


class Chosen(MaskingCollator):
    """Selects the tokens it is told to."""

    def __init__(self, tokenizer, masked, units=None, **options):
        super().__init__(tokenizer, **options)
        self.selection = Selection(np.array(masked, dtype=bool), None if units is None else np.array(units))

    def select(self, batch, eligible, rng):
        return self.selection


ALWAYS_MASK = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0}
CHOSEN = [0, 1, 0, 1, 0, 0, 1, 0]


def test_flat_batch_by_hand(tokenizer):
    out = Chosen(tokenizer, CHOSEN, flat=True, **ALWAYS_MASK)(ROWS)
    expected = {
        "input_ids": torch.tensor([[2, 4, 11, 4, 3, 2, 4, 3]]),
        "labels": torch.tensor([[-100, 10, -100, 12, -100, -100, 20, -100]]),
        "position_ids": torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]]),
        "cu_seq_lens_q": torch.tensor([0, 5, 8], dtype=torch.int32),
        "cu_seq_lens_k": torch.tensor([0, 5, 8], dtype=torch.int32),
        "max_length_q": 5,
        "max_length_k": 5,
    }
    assert_same(out, expected)
    assert type(out["max_length_q"]) is int


def test_padded_batch_by_hand(tokenizer):
    out = Chosen(tokenizer, CHOSEN, **ALWAYS_MASK)(ROWS)
    expected = {
        "input_ids": torch.tensor([[2, 4, 11, 4, 3], [2, 4, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, 10, -100, 12, -100], [-100, 20, -100, -100, -100]]),
    }
    assert_same(out, expected)


def test_left_padding_to_a_multiple_by_hand():
    out = Chosen(word_tokenizer(padding_side="left"), CHOSEN, pad_to_multiple_of=4, **ALWAYS_MASK)(ROWS)
    assert out["input_ids"].tolist() == [[0, 0, 0, 2, 4, 11, 4, 3], [0, 0, 0, 0, 0, 2, 4, 3]]
    assert out["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1]]
    assert out["labels"].tolist() == [[-100] * 4 + [10, -100, 12, -100], [-100] * 6 + [20, -100]]


def test_all_kept_and_all_random(tokenizer):
    kept = Chosen(tokenizer, CHOSEN, mask_replace_prob=0.0, random_replace_prob=0.0, flat=True)(ROWS)
    assert kept["input_ids"].tolist() == [[2, 10, 11, 12, 3, 2, 20, 3]]
    assert kept["labels"].tolist() == [[-100, 10, -100, 12, -100, -100, 20, -100]]
    masked = np.ones(3000, dtype=bool)
    out = Chosen(tokenizer, masked, mask_replace_prob=0.0, random_replace_prob=1.0, flat=True)(
        [{"input_ids": np.full(3000, 9)}]
    )
    # Uniform over the 60 words: each expected 50 times, standard deviation below 7.1.
    counts = np.bincount(out["input_ids"][0], minlength=len(SPECIAL) + NUM_WORDS)
    assert not counts[: len(SPECIAL)].any()
    assert np.abs(counts[len(SPECIAL) :] - 50).max() < 5 * 7.1


@pytest.mark.parametrize("per_span", [False, True])
def test_shares_of_mask_random_and_kept(tokenizer, per_span):
    rows = random_rows(400, seed=3)
    out = MLMCollator(tokenizer, 0.3, whole_word=True, per_span=per_span, flat=True)(rows)
    masked = masked_of(out)
    now, before = out["input_ids"][0].numpy()[masked], out["labels"][0].numpy()[masked]
    n = masked.sum()
    # With one draw a word of up to 3 tokens the variance is at most 3 times the binomial one.
    for share, expected in (
        ((now == MASK).mean(), 0.8),
        ((now == before).mean(), 0.1 + 0.1 / NUM_WORDS),
        (((now != MASK) & (now != before)).mean(), 0.1 * (1 - 1 / NUM_WORDS)),
    ):
        assert abs(share - expected) < 5 * np.sqrt(3 * expected * (1 - expected) / n)


def test_shares_follow_the_options(tokenizer):
    rows = random_rows(400, seed=3)
    out = MLMCollator(tokenizer, 0.5, mask_replace_prob=0.5, random_replace_prob=0.5, flat=True)(rows)
    masked = masked_of(out)
    now, n = out["input_ids"][0].numpy()[masked], masked.sum()
    assert abs((now == MASK).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    kept = (now == out["labels"][0].numpy()[masked]).mean()
    expected = 0.5 / NUM_WORDS
    assert abs(kept - expected) < 5 * np.sqrt(expected / n)


def test_per_span_draws_once_a_unit(tokenizer):
    units = np.repeat(np.arange(2000), 4)
    row = [{"input_ids": np.full(8000, 9)}]
    masked = np.ones(8000, dtype=bool)
    out = Chosen(tokenizer, masked, units, per_span=True, random_replace_prob=0.0, flat=True)(row)
    fates = (out["input_ids"][0].numpy() == MASK).reshape(2000, 4)
    assert (fates == fates[:, :1]).all()
    assert abs(fates[:, 0].mean() - 0.8) < 5 * np.sqrt(0.16 / 2000)
    out = Chosen(tokenizer, masked, units, per_span=False, random_replace_prob=0.0, flat=True)(row)
    fates = (out["input_ids"][0].numpy() == MASK).reshape(2000, 4)
    mixed = (fates != fates[:, :1]).any(axis=1).mean()
    assert abs(mixed - (1 - 0.8**4 - 0.2**4)) < 5 * np.sqrt(0.25 / 2000)


def test_per_span_separates_adjacent_masked_units(tokenizer):
    """Two neighbouring units, the second after a gap in the numbers: each has a draw of its own."""
    fates = set()
    for step in range(40):
        row = [{"input_ids": [9, 9, 9, 9], "step": step}]
        out = Chosen(tokenizer, [1, 1, 1, 1], [0, 0, 3, 3], per_span=True, mask_replace_prob=0.5, flat=True)(row)
        a, b, c, d = (out["input_ids"][0] == MASK).tolist()
        assert a == b
        assert c == d
        fates.add((a, c))
    assert len(fates) == 4


def test_rows_as_dicts_and_as_batch_give_the_same(tokenizer):
    rows = random_rows(30, spans=True, step=7)
    assert_same(MLMCollator(tokenizer)(rows), MLMCollator(tokenizer)(RowBatch.from_rows(rows)))


@pytest.mark.parametrize("options", [{}, {"whole_word": True}, {"whole_word": True, "per_span": True}])
def test_padded_and_flat_make_the_same_selection(tokenizer, options):
    rows = random_rows(50, step=5)
    padded = MLMCollator(tokenizer, **options)(rows)
    flat = MLMCollator(tokenizer, flat=True, **options)(rows)
    real = padded["attention_mask"].bool()
    assert padded["input_ids"][real].tolist() == flat["input_ids"][0].tolist()
    assert padded["labels"][real].tolist() == flat["labels"][0].tolist()
    assert (padded["labels"][~real] == -100).all()


def test_input_is_left_alone_and_can_be_restored(tokenizer):
    rows = random_rows(50)
    batch = RowBatch.from_rows(rows)
    before = batch.input_ids.copy()
    out = MLMCollator(tokenizer, 0.5, flat=True)(batch)
    assert (batch.input_ids == before).all()
    assert batch.step is None
    assert (originals_of(out)[0].numpy() == before).all()


def test_selection_depends_on_seed_phase_step_and_micro_only(tokenizer):
    rows = RowBatch.from_rows(random_rows(20))

    def masked(seed=0, **place):
        for name, value in {"step": 3, "micro": 0, "phase": 0, **place}.items():
            setattr(rows, name, value)
        collator = MLMCollator(tokenizer, seed=seed, flat=True)
        collator([{"input_ids": [5, 6]}])  # an earlier call leaves no trace
        return masked_of(collator(rows)).tolist()

    different = [masked(), masked(seed=1), masked(step=4), masked(micro=1), masked(phase=1)]
    assert different[0] == masked()
    assert len({tuple(m) for m in different}) == len(different)


def test_row_dicts_carry_micro_and_phase_too(tokenizer):
    rows = random_rows(20, step=3)
    batch = RowBatch.from_rows(rows)
    batch.micro, batch.phase = 2, 1
    rows = [{**row, "micro": 2, "phase": 1} for row in rows]
    assert_same(MLMCollator(tokenizer)(rows), MLMCollator(tokenizer)(batch))


def test_without_step_calls_are_counted(tokenizer):
    rows = random_rows(20)
    collator = MLMCollator(tokenizer, flat=True)
    first, second = collator(rows), collator(rows)
    assert (masked_of(first) != masked_of(second)).any()
    with_step = MLMCollator(tokenizer, flat=True)([{**row, "step": 1} for row in rows])
    assert_same(second, with_step)


def test_selections_are_pinned(tokenizer):
    """The same in every version: a changed stream would break the resumption of runs."""
    row = [{"input_ids": list(range(5, 25)), "word_ids": np.arange(20) // 2, "step": 11}]
    out = MLMCollator(tokenizer, 0.4, whole_word=True, seed=3, flat=True)(row)
    assert np.flatnonzero(masked_of(out)).tolist() == [8, 9, 12, 13, 16, 17, 18, 19]
    assert out["input_ids"][0].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 4, 4, 15, 16, 4, 4, 19, 20, 4, 4, 4, 4]


def test_collator_pickles_small_and_equal(tokenizer):
    collator = MLMCollator(tokenizer)
    data = pickle.dumps(collator)
    assert len(data) < 5000
    rows = random_rows(5, step=1)
    assert_same(pickle.loads(data)(rows), collator(rows))


def test_special_tokens_without_a_role_replace_nothing():
    tokenizer = word_tokenizer()
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken("<gap>", special=True), AddedToken("<atom>", special=False)])
    gap, atom = tokenizer.convert_tokens_to_ids(["<gap>", "<atom>"])
    out = MLMCollator(tokenizer, 0.99, mask_replace_prob=0.0, random_replace_prob=1.0, flat=True)(
        [{"input_ids": np.full(4000, 9)}]
    )
    used = set(out["input_ids"][0].tolist())
    assert used == {*range(len(SPECIAL), len(SPECIAL) + NUM_WORDS), atom}
    assert gap not in used


def test_unknown_ids_are_left_to_the_model(tokenizer):
    out = MLMCollator(tokenizer, 0.99, flat=True)([{"input_ids": np.full(200, 5000)}])
    assert set(out["labels"][0].tolist()) <= {5000, -100}
    assert masked_of(out).mean() > 0.9


def test_tokenizer_without_mask_token():
    with pytest.raises(ValueError, match=r"no mask token.*add_special_tokens"):
        MLMCollator(word_tokenizer(mask_token=None))


def test_tokenizer_without_pad_token_serves_flat_batches():
    bare = word_tokenizer(pad_token=None)
    with pytest.raises(ValueError, match=r"no pad token.*flat=True"):
        MLMCollator(bare)
    assert MLMCollator(bare, flat=True)(ROWS)["input_ids"].shape == (1, 8)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, 15, float("nan")])
def test_probability_out_of_range(tokenizer, probability):
    with pytest.raises(ValueError, match="mlm_probability must lie between 0 and 1"):
        MLMCollator(tokenizer, probability)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_replace_prob": 0.95}, "sum of at most 1"),
        ({"random_replace_prob": -0.1}, "sum of at most 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of must be at least 1"),
    ],
)
def test_options_out_of_range(tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        MLMCollator(tokenizer, **options)


def test_unknown_option(tokenizer):
    with pytest.raises(TypeError, match="mlm_prob"):
        MLMCollator(tokenizer, mlm_prob=0.3)


def test_empty_rows(tokenizer):
    collator = MLMCollator(tokenizer, flat=True)
    with pytest.raises(ValueError, match="at least one row"):
        collator([])
    with pytest.raises(ValueError, match="all 2 rows of the batch are empty"):
        collator([{"input_ids": []}, {"input_ids": []}])
    rows = [{"input_ids": ids} for ids in ([], [CLS, 7, SEP], [], [CLS, SEP], [])]
    out = collator(rows)
    assert out["cu_seq_lens_q"].tolist() == [0, 0, 3, 3, 5, 5]
    assert out["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    padded = MLMCollator(tokenizer)(rows)
    assert padded["attention_mask"].sum(1).tolist() == [0, 3, 0, 2, 0]


@pytest.mark.parametrize("collator", [GuidedMLMCollator, SpanMaskingCollator])
def test_rows_without_words_and_spans_are_warned_about_once(tokenizer, collator, caplog):
    """The stock Trainer takes both columns away by default, and the batches look as ever."""
    rows = random_rows(6, words=False)
    empty = {"span_start": [], "span_end": [], "span_score": [], "span_kind": []}
    with caplog.at_level(logging.WARNING):
        collate = collator(tokenizer)
        collate(random_rows(6))
        collate([row | empty for row in rows])
        assert not caplog.records
        collate(rows)
        collate(rows)
    (record,) = caplog.records
    assert record.getMessage() == (
        "rows have no word_ids and no spans, so tokens are masked one by one (said once; tokenise with them; the stock "
        "Trainer removes them unless remove_unused_columns=False)"
    )
