from __future__ import annotations

import logging
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from masking_cases import (
    CLS,
    MASK,
    SEP,
    assert_same,
    eligible_of,
    masked_of,
    random_rows,
    tokenised,
    trained_tokenizer,
    word_tokenizer,
)
from test_masking_models import Steps
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM

from rexbert_hf import AdaptiveHybridMaskingCollator
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking import MLMCollator, PhraseMaskingCollator
from rexbert_hf.masking.phrase_mode import spread_over_texts

ALWAYS_MASK = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0}


def phrase_row(length, *spans, kind=0, **more):
    """[CLS], `length` words of one token, [SEP]; spans as (start, end, score) in words."""
    start, end, score = (list(values) for values in zip(*spans, strict=True)) if spans else ([], [], [])
    return {
        "input_ids": np.concatenate([[CLS], 5 + np.arange(length) % 60, [SEP]]),
        "word_ids": np.concatenate([[-1], np.arange(length), [-1]]),
        "span_start": [s + 1 for s in start],
        "span_end": [e + 1 for e in end],
        "span_score": score,
        "span_kind": [kind] * len(spans),
        **more,
    }


def phrase_masked(output):
    return masked_of({**output, "labels": output["phrase_labels"]})


def counts_over_steps(collator, rows, steps):
    """How often each token was masked in phrase mode."""
    total = 0
    for step in range(steps):
        total = total + phrase_masked(collator([{**row, "step": step} for row in rows])).astype(int)
    return total


@pytest.mark.parametrize("flat", [True, False])
def test_word_mode_is_whole_word_masking_draw_for_draw(tokenizer, flat):
    rows = random_rows(100, spans=True)
    out = AdaptiveHybridMaskingCollator(tokenizer, flat=flat)(rows)
    plain = MLMCollator(tokenizer, 0.15, whole_word=True, flat=flat)(rows)
    assert_same({name: value for name, value in out.items() if not name.startswith("phrase_")}, plain)


def test_names_and_shapes(tokenizer):
    rows = random_rows(20, spans=True)
    for flat in (True, False):
        out = AdaptiveHybridMaskingCollator(tokenizer, flat=flat)(rows)
        assert set(out) - set(MLMCollator(tokenizer, flat=flat)(rows)) == {
            "phrase_input_ids",
            "phrase_labels",
            "phrase_fallback",
        }
        for name in ("input_ids", "labels"):
            assert out[f"phrase_{name}"].shape == out[name].shape
            assert out[f"phrase_{name}"].dtype == torch.int64
        assert out["phrase_fallback"].shape == (20,)


def test_flat_and_padded_select_the_same(tokenizer):
    rows = random_rows(50, spans=True, step=3)
    flat, padded = (AdaptiveHybridMaskingCollator(tokenizer, flat=flat)(rows) for flat in (True, False))
    real = padded["attention_mask"].bool()
    for name in ("input_ids", "labels", "phrase_input_ids", "phrase_labels"):
        assert padded[name][real].tolist() == flat[name][0].tolist()
    assert (padded["phrase_labels"][~real] == -100).all()


def test_the_budget_is_met_in_both_modes(tokenizer):
    """Dense phrases of 1 to 15 tokens, over texts of 1 to 120 tokens, some without a phrase."""
    rows = random_rows(300, spans=True)
    for row in rows:
        row["span_kind"] = row["span_kind"] % 2
    eligible = eligible_of(rows)
    collator = AdaptiveHybridMaskingCollator(tokenizer, flat=True)
    shares = {"word": [], "phrase": []}
    for step in range(100):
        out = collator([{**row, "step": step} for row in rows])
        assert collator.stats["phrase_tokens_missing"] == 0
        for mode, masked in (("word", masked_of(out)), ("phrase", phrase_masked(out))):
            assert not masked[~eligible].any()
            shares[mode].append(masked.sum() / eligible.sum())
    for mode, values in shares.items():
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - 0.15) < 5 * error, mode
        assert error < 0.001


def with_phrases(row, rng):
    """The row with disjoint phrases of one or two words over a third of them."""
    words = row["word_ids"].max() + 1
    first = 2 * np.sort(rng.choice(max(words // 2, 1), size=words // 4, replace=False))
    last = np.minimum(first + rng.integers(1, 3, len(first)), words) - 1
    start = np.searchsorted(row["word_ids"][1:-1], first) + 1
    end = np.searchsorted(row["word_ids"][1:-1], last, side="right") + 1
    return {
        **row,
        "span_start": start,
        "span_end": end,
        "span_score": rng.random(len(first)),
        "span_kind": np.zeros(len(first)),
    }


def test_phrases_are_masked_whole_and_nothing_else_where_there_are_phrases(tokenizer):
    rows = [with_phrases(row, np.random.default_rng(i)) for i, row in enumerate(random_rows(200, seed=2))]
    collator = AdaptiveHybridMaskingCollator(tokenizer, flat=True)
    partly = 0
    for step in range(20):
        out = collator([{**row, "step": step} for row in rows])
        masked, at = phrase_masked(out), 0
        for row, fallback in zip(rows, out["phrase_fallback"].tolist(), strict=True):
            mine = masked[at : at + len(row["input_ids"])]
            at += len(mine)
            assert fallback == (len(row["span_start"]) == 0)
            if fallback:
                continue
            inside = np.zeros(len(mine), dtype=bool)
            for a, b in zip(row["span_start"], row["span_end"], strict=True):
                inside[a:b] = True
                assert mine[a:b].all() or not mine[a:b].any()
                partly += bool(mine[a])
            assert not mine[~inside].any()
    assert partly > 1000


def test_texts_without_phrases_fall_back_to_the_words_of_word_mode(tokenizer, caplog):
    rows = [phrase_row(40), phrase_row(40, (0, 8, 0.9)), {**phrase_row(0)}, phrase_row(40)]
    collator = AdaptiveHybridMaskingCollator(tokenizer, flat=True)
    out = collator(rows)
    assert out["phrase_fallback"].tolist() == [True, False, False, True]
    assert collator.stats["texts_without_phrases"] == 2
    word, phrase = masked_of(out), phrase_masked(out)
    for fallback in (slice(0, 42), slice(86, 128)):
        assert (word[fallback] == phrase[fallback]).all()
    assert not caplog.text


def test_rows_without_any_phrase_are_word_masking_and_warned_about_once(tokenizer, caplog):
    rows = [{key: row[key] for key in ("input_ids", "word_ids")} for row in random_rows(30)]
    collator = AdaptiveHybridMaskingCollator(tokenizer, flat=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            out = collator(rows)
            assert (masked_of(out) == phrase_masked(out)).all()
            assert out["phrase_fallback"].all()
    assert caplog.text.count("no text of a batch has a phrase (spans of kind phrase, noun_phrase)") == 1
    assert "the stock Trainer removes spans unless remove_unused_columns=False" in caplog.text
    plain = AdaptiveHybridMaskingCollator(tokenizer, flat=True)([{"input_ids": row["input_ids"]} for row in rows])
    assert (masked_of(plain) == phrase_masked(plain)).all()


def test_only_the_chosen_kinds_are_phrases(tokenizer):
    """A brand that scores higher does not push out the phrase it overlaps."""
    row = phrase_row(20, (0, 3, 0.5), (2, 6, 1.0), (10, 13, 0.5))
    row["span_kind"] = [0, 2, 1]
    for kinds, allowed in ((("phrase", "noun_phrase"), [0, 1, 2, 10, 11, 12]), (("brand",), [2, 3, 4, 5])):
        collator = AdaptiveHybridMaskingCollator(tokenizer, flat=True, kinds=kinds)
        counts = counts_over_steps(collator, [row], 100)
        assert np.flatnonzero(counts).tolist() == [1 + i for i in allowed]


def plackett_luce(scores, slots):
    """Probability that each item is among the first `slots` draws by softmax without replacement, by enumeration."""
    weights = np.exp(scores)
    found = np.zeros(len(scores))
    for order in permutations(range(len(scores)), slots):
        probability, left = 1.0, weights.sum()
        for i in order:
            probability *= weights[i] / left
            left -= weights[i]
        for i in order:
            found[i] += probability
    return found


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_phrases_are_drawn_by_the_softmax_of_their_scores(tokenizer, slots):
    """Five phrases of two tokens in 40, so that the budget is 1, 2 or 3 whole phrases."""
    scores = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    row = phrase_row(40, *[(8 * i, 8 * i + 2, s) for i, s in enumerate(scores)])
    collator = AdaptiveHybridMaskingCollator(tokenizer, 2 * slots / 40, flat=True)
    steps = 3000
    counts = counts_over_steps(collator, [row] * 4, steps).reshape(4, 42)[:, 1:41:8].sum(0)
    expected = plackett_luce(scores, slots)
    error = np.sqrt(expected * (1 - expected) / (4 * steps))
    assert (np.abs(counts / (4 * steps) - expected) < 5 * error).all()


def test_an_overlapped_phrase_is_out_once_its_rival_is_taken(tokenizer):
    """Of two overlapping phrases exactly one is masked, by the softmax of the two: the lower score may win."""
    row = phrase_row(20, (0, 3, 0.2), (2, 5, 0.9))
    collator = AdaptiveHybridMaskingCollator(tokenizer, 0.15, flat=True)
    counts = counts_over_steps(collator, [row] * 4, 2000).reshape(4, 22).sum(0)[1:6]
    assert counts[2] == 8000, "the token of both is masked by either"
    first = math.exp(0.2) / (math.exp(0.2) + math.exp(0.9))
    assert abs(counts[0] / 8000 - first) < 5 * math.sqrt(0.25 / 8000)
    assert counts[0] == counts[1]
    assert counts[0] + counts[3] == 8000


def test_the_phrase_at_the_border_is_masked_with_the_share_that_is_left(tokenizer):
    """One phrase of 10 tokens in 40: a budget of 6 is met by masking it in 60 % of the draws."""
    row = phrase_row(40, (5, 15, 0.7))
    collator = AdaptiveHybridMaskingCollator(tokenizer, 0.15, flat=True)
    counts = counts_over_steps(collator, [row] * 4, 1000).reshape(4, 42).sum(0)
    assert set(np.flatnonzero(counts)) == set(range(6, 16))
    assert len(set(counts[6:16])) == 1
    assert abs(counts[6] / 4000 - 0.6) < 5 * math.sqrt(0.24 / 4000)


def test_short_phrases_leave_their_budget_to_other_texts(tokenizer):
    """Budgets of 6 each: one text can give 2, so the other two give 8 each; alone, 4 tokens are missing."""
    short = phrase_row(40, (5, 7, 0.9))
    rich = phrase_row(40, *[(2 * i, 2 * i + 2, 0.5) for i in range(20)])
    collator = AdaptiveHybridMaskingCollator(tokenizer, 0.15, flat=True)
    counts = counts_over_steps(collator, [short, rich, rich], 500).reshape(3, 42).sum(1)
    assert counts[0] == 2 * 500
    assert counts.tolist() == [1000, 4000, 4000]
    assert collator.stats == {"texts_without_phrases": 0, "phrase_tokens_missing": 0}
    own = AdaptiveHybridMaskingCollator(tokenizer, 0.15, flat=True, max_spread=1)
    assert counts_over_steps(own, [short, rich, rich], 100).reshape(3, 42).sum(1).tolist() == [200, 600, 600]
    assert own.stats["phrase_tokens_missing"] == 4
    collator([short])
    assert collator.stats["phrase_tokens_missing"] == 4


def by_bisection(capacity, wanted, max_spread):
    low, high = 1.0, max_spread
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(capacity, middle * wanted).sum() < wanted.sum() else (low, middle)
    return np.minimum(capacity, high * wanted)


@pytest.mark.parametrize("seed", range(20))
def test_spreading_solves_its_equation(seed):
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, 2, 30) * rng.random(30) * 10
    capacity = np.where(wanted > 0, rng.integers(0, 30, 30) * rng.choice([0.1, 1.0]), 0.0)
    got, missing = spread_over_texts(capacity, wanted, 2.0)
    assert got == pytest.approx(by_bisection(capacity, wanted, 2.0), abs=1e-6)
    assert got.sum() + missing == pytest.approx(wanted.sum())


def test_80_10_10_by_token_or_by_phrase(tokenizer):
    row = phrase_row(1000, *[(4 * i, 4 * i + 4, 0.5) for i in range(250)])
    for per_span in (False, True):
        collator = AdaptiveHybridMaskingCollator(tokenizer, 0.15, flat=True, per_span=per_span)
        kept, total, mixed = 0, 0, 0
        for step in range(40):
            out = collator([{**row, "step": step}])
            masked = phrase_masked(out)[1:-1].reshape(-1, 4)
            ids = out["phrase_input_ids"][0, 1:-1].numpy().reshape(-1, 4)
            is_mask = (ids == MASK)[masked[:, 0]]
            kept, total = kept + is_mask.sum(), total + is_mask.size
            mixed += (is_mask.any(1) & ~is_mask.all(1)).sum()
        assert (mixed == 0) == per_span
        # One draw decides four tokens with per_span.
        assert abs(kept / total - 0.8) < 5 * math.sqrt((4 if per_span else 1) * 0.16 / total)


def test_selections_depend_on_rows_seed_and_step_only(tokenizer):
    rows = random_rows(40, spans=True, step=5)
    first = AdaptiveHybridMaskingCollator(tokenizer, flat=True, seed=1)(rows)
    assert_same(first, AdaptiveHybridMaskingCollator(tokenizer, flat=True, seed=1)(rows))
    assert_same(first, AdaptiveHybridMaskingCollator(tokenizer, flat=True, seed=1)(RowBatch.from_rows(rows)))
    others = [
        AdaptiveHybridMaskingCollator(tokenizer, flat=True, seed=2)(rows),
        AdaptiveHybridMaskingCollator(tokenizer, flat=True, seed=1)([{**row, "step": 6} for row in rows]),
    ]
    for other in others:
        assert (phrase_masked(first) != phrase_masked(other)).any()
    assert (phrase_masked(first) != masked_of(first)).any()


def test_workers_do_not_change_selections(tokenizer):
    rows = random_rows(32, spans=True)
    batches = [[((8 * step + i) % 32, step) for i in range(8)] for step in range(6)]
    collator = AdaptiveHybridMaskingCollator(tokenizer)
    alone, two = (
        list(DataLoader(Steps(rows), batch_sampler=batches, collate_fn=collator, num_workers=workers))
        for workers in (0, 2)
    )
    for left, right in zip(alone, two, strict=True):
        assert_same(left, right)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_tokenizers_of_three_families(kind):
    trained = trained_tokenizer(kind)
    rows = []
    for row in tokenised(trained, ["stainless steel water bottle with bamboo lid", "kids' wooden building blocks"]):
        inside = np.flatnonzero(np.isin(row["word_ids"], [1, 2]))
        span = {"span_start": [inside[0]], "span_end": [inside[-1] + 1], "span_score": [1.0], "span_kind": [0]}
        rows.append({**row, **span})
    out = AdaptiveHybridMaskingCollator(trained, 0.9, flat=True, **ALWAYS_MASK)(rows)
    words = np.concatenate([row["word_ids"] for row in rows])
    assert (phrase_masked(out) == np.isin(words, [1, 2])).all()
    assert (out["phrase_input_ids"][0].numpy()[phrase_masked(out)] == trained.mask_token_id).all()


def test_a_stock_model_takes_either_mode(tokenizer):
    rows = random_rows(8, spans=True)
    out = AdaptiveHybridMaskingCollator(tokenizer)(rows)
    model = BertForMaskedLM(
        BertConfig(vocab_size=65, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    )
    for prefix in ("", "phrase_"):
        loss = model(
            input_ids=out[f"{prefix}input_ids"], attention_mask=out["attention_mask"], labels=out[f"{prefix}labels"]
        ).loss
        assert torch.isfinite(loss)


def test_the_phrase_mode_alone(tokenizer):
    rows = random_rows(200, spans=True)
    for row in rows:
        row["span_kind"] = row["span_kind"] % 2
    collator = PhraseMaskingCollator(tokenizer, flat=True)
    out = collator(rows)
    assert set(out) == set(MLMCollator(tokenizer, flat=True)(rows))
    assert collator.stats["texts_without_phrases"] > 0
    shares = []
    for step in range(60):
        masked = masked_of(collator([{**row, "step": step} for row in rows]))
        shares.append(masked.sum() / eligible_of(rows).sum())
    assert abs(np.mean(shares) - 0.15) < 5 * np.std(shares) / math.sqrt(len(shares))


def test_bad_input_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"row 0 of the batch: span \[1, 3\) with score 1.5"):
        AdaptiveHybridMaskingCollator(tokenizer)([phrase_row(10, (0, 2, 1.5))])
    with pytest.raises(ValueError, match=r"kinds must list names of phrase, .*; got \('phrases',\)"):
        AdaptiveHybridMaskingCollator(tokenizer, kinds=("phrases",))
    with pytest.raises(ValueError, match="kinds must list names"):
        AdaptiveHybridMaskingCollator(tokenizer, kinds="phrase")
    with pytest.raises(ValueError, match=r"max_spread must be at least 1, got 0.5"):
        AdaptiveHybridMaskingCollator(tokenizer, max_spread=0.5)
    with pytest.raises(ValueError, match="no mask token"):
        AdaptiveHybridMaskingCollator(word_tokenizer(mask_token=None))


def test_a_span_over_a_special_token_is_left_out_and_said(tokenizer, caplog):
    row = phrase_row(10, (2, 4, 0.5))
    row["span_start"], row["span_end"] = [0], [3]
    with caplog.at_level(logging.WARNING):
        out = AdaptiveHybridMaskingCollator(tokenizer)([row])
    assert out["phrase_fallback"].tolist() == [True]
    assert "1 spans of a batch cover a special token" in caplog.text
