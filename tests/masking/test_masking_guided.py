from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_cases import assert_same, eligible_of, masked_of, random_rows

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking import GuidedMLMCollator, MLMCollator
from rexbert_hf.masking.guided import spread_budget
from rexbert_hf.phrases.idf import InverseDocumentFrequency

VOCAB = 65
WORD = {"input_ids": [2, 10, 11, 12, 13, 14, 3], "word_ids": [-1, 0, 0, 1, 2, 3, -1]}


def with_spans(*spans, **fields):
    names = ("span_start", "span_end", "span_score", "span_kind")
    return {**WORD, **{name: [span[i] for span in spans] for i, name in enumerate(names)}, **fields}


def expected_tokens(guided, rows):
    """Expected number of masked tokens, computed token by token."""
    probability = np.broadcast_to(guided.probability, guided.units[-1] + 1)
    return probability[guided.units][eligible_of(rows)].sum()


def test_probabilities_by_hand(tokenizer):
    """Budget .3 * 5 tokens; weights: span of words 1-2 (2 tokens) 1 + 2 * .5 * .75, words 1."""
    collator = GuidedMLMCollator(tokenizer, 0.3, boost=2.0, kind_weights={"brand": 0.75})
    guided = collator.probabilities([with_spans((3, 5, 0.5, 2))])
    scale = 1.5 / (2 + 1.75 * 2 + 1)
    assert guided.units.tolist() == [0, 1, 1, 2, 2, 3, 4]
    expected = [scale, scale, 1.75 * scale, scale, scale]
    np.testing.assert_allclose(guided.probability, expected, rtol=1e-14)


def test_the_cap_hands_on_what_it_cuts(tokenizer):
    collator = GuidedMLMCollator(tokenizer, 0.3, boost=100.0, max_probability=0.6)
    guided = collator.probabilities([with_spans((3, 5, 1.0, 0))])
    rest = (1.5 - 0.6 * 2) / 3
    np.testing.assert_allclose(guided.probability, [rest, rest, 0.6, rest, rest], rtol=1e-14)


def test_a_cap_below_the_budget_is_raised(tokenizer):
    collator = GuidedMLMCollator(tokenizer, 0.3, max_probability=0.2)
    guided = collator.probabilities([with_spans((3, 5, 1.0, 0))])
    np.testing.assert_allclose(guided.probability, 0.3, rtol=1e-14)


def test_token_weights_by_hand(tokenizer):
    weights = np.ones(VOCAB)
    weights[10], weights[11], weights[12], weights[14] = 1.0, 3.0, 4.0, 0.5
    collator = GuidedMLMCollator(tokenizer, 0.1, boost=1.0, token_weights=weights)
    guided = collator.probabilities([with_spans((3, 5, 1.0, 0))])
    # Word 0 has tokens of weight 1 and 3; the span those of 4 and 1, doubled by its score; word 3 has .5.
    unit = np.array([2.0, 2.5 * 2, 0.5])
    scale = 0.5 / (unit * [2, 2, 1]).sum()
    np.testing.assert_allclose(guided.probability[[1, 2, 3]], unit * scale, rtol=1e-14)


def test_token_weights_without_spans_or_words(tokenizer):
    weights = np.ones(VOCAB)
    weights[10] = 2.0
    collator = GuidedMLMCollator(tokenizer, 0.2, token_weights=weights)
    guided = collator.probabilities([{"input_ids": WORD["input_ids"]}])
    scale = 1.0 / 6
    np.testing.assert_allclose(guided.probability[1:6], np.array([2, 1, 1, 1, 1]) * scale, rtol=1e-14)


def test_the_table_of_document_frequencies_is_taken_as_it_is(tokenizer):
    table = InverseDocumentFrequency.fit([WORD], VOCAB, tokenizer.all_special_ids).table
    kept = table.copy()
    guided = GuidedMLMCollator(tokenizer, 0.2, token_weights=table).probabilities([WORD])
    np.testing.assert_allclose(guided.probability[1:5], 0.2, rtol=1e-6)  # each token stands in the one document
    np.testing.assert_array_equal(table, kept)


@pytest.mark.parametrize("token_weights", [None, np.random.default_rng(0).uniform(0.1, 9, VOCAB)])
@pytest.mark.parametrize(("probability", "cap"), [(0.15, 0.8), (0.3, 0.8), (0.3, 0.35), (0.5, 0.2), (0.02, 1.0)])
def test_the_expected_budget_is_exact(tokenizer, probability, cap, token_weights):
    for seed in range(5):
        rows = random_rows(40, seed=seed, spans=True)
        collator = GuidedMLMCollator(
            tokenizer, probability, boost=20.0, max_probability=cap, token_weights=token_weights
        )
        guided = collator.probabilities(rows)
        budget = probability * eligible_of(rows).sum()
        assert expected_tokens(guided, rows) == pytest.approx(budget, rel=1e-11)
        assert guided.probability.min() > 0
        of_text = guided.probability[np.unique(guided.units[eligible_of(rows)])]
        assert of_text.max() <= max(cap, probability) * (1 + 1e-12)


def test_masking_follows_the_probabilities(tokenizer):
    """Over many steps each token is masked as often as its unit's probability says, special tokens never."""
    rows = random_rows(3, seed=2, spans=True, mean_length=20)
    collator = GuidedMLMCollator(tokenizer, 0.3, boost=5.0, flat=True)
    guided, eligible = collator.probabilities(rows), eligible_of(rows)
    expected = np.where(eligible, guided.probability[guided.units], 0)
    steps = 3000
    counts = sum(masked_of(collator([{**row, "step": step} for row in rows])).astype(int) for step in range(steps))
    assert (np.abs(counts - steps * expected) <= 5 * np.sqrt(steps * expected * (1 - expected))).all()
    assert guided.probability.max() > 2 * guided.probability.min()


def test_realised_budget(tokenizer):
    rows = random_rows(1500, seed=6, spans=True)
    collator = GuidedMLMCollator(tokenizer, 0.3, flat=True)
    guided, eligible = collator.probabilities(rows), eligible_of(rows)
    sizes = np.bincount(guided.units[eligible], minlength=len(guided.probability)).astype(float)
    deviation = np.sqrt((guided.probability * (1 - guided.probability) * sizes**2).sum())
    masked = masked_of(collator(rows))
    assert abs(masked.sum() - 0.3 * eligible.sum()) < 5 * deviation
    assert not (masked & ~eligible).any()


def test_spans_are_masked_whole_and_more_often(tokenizer):
    rows = [with_spans((3, 5, 1.0, 0), (5, 6, 0.1, 4))] * 3000
    masked = masked_of(GuidedMLMCollator(tokenizer, 0.3, flat=True)(rows)).reshape(-1, 7)
    assert (masked[:, 3] == masked[:, 4]).all()
    assert (masked[:, 1] == masked[:, 2]).all()
    scale = 1.5 / (2 + 3 * 2 + 1.2)
    for place, expected in ((1, scale), (3, 3 * scale), (5, 1.2 * scale)):
        assert abs(masked[:, place].mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("spans", ["none", "empty"])
def test_without_spans_it_is_plain_masking(tokenizer, words, spans):
    rows = random_rows(100, words=words, step=9)
    if spans == "empty":
        rows = [{**row, "span_start": [], "span_end": [], "span_score": [], "span_kind": []} for row in rows]
    guided = GuidedMLMCollator(tokenizer, 0.2, seed=4, guidance_steps=3)(rows)
    assert_same(guided, MLMCollator(tokenizer, 0.2, seed=4, whole_word=words)(rows))


def test_strength_zero_masks_spans_whole_but_no_more_often(tokenizer):
    rows = random_rows(50, seed=1, spans=True, step=0)
    guided = GuidedMLMCollator(tokenizer, 0.3, guidance_steps=10).probabilities(rows)
    np.testing.assert_allclose(guided.probability, 0.3, rtol=1e-12)


def test_strength_rises_linearly_from_the_phases_first_step(tokenizer):
    collator = GuidedMLMCollator(tokenizer, guidance_start=0.2, guidance_end=0.8, guidance_steps=100, first_step=1000)
    steps = [0, 1000, 1025, 1050, 1100, 5000]
    assert [collator.strength(step) for step in steps] == pytest.approx([0.2, 0.2, 0.35, 0.5, 0.8, 0.8])
    assert GuidedMLMCollator(tokenizer, guidance_start=0.2, guidance_end=0.8).strength(0) == 0.8


def test_strength_follows_the_rows_step_and_the_count_of_calls(tokenizer):
    def share_of_span(collator, **fields):
        rows = [with_spans((3, 5, 1.0, 0), **fields)] * 2000
        return masked_of(collator(rows)).reshape(-1, 7)[:, 3].mean()

    options = {"mlm_probability": 0.2, "boost": 10.0, "guidance_steps": 2, "flat": True}
    full = 0.8  # capped: weight 11 against 3 words would be 0.88
    for step, expected in ((0, 0.2), (2, 1 / (22 + 3) * 11), (7, 1 / (22 + 3) * 11)):
        share = share_of_span(GuidedMLMCollator(tokenizer, **options), step=step)
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000)
        assert expected <= full
    counting = GuidedMLMCollator(tokenizer, **options)
    shares = [share_of_span(counting) for _ in range(3)]
    assert abs(shares[0] - 0.2) < 5 * np.sqrt(0.16 / 2000)
    assert shares[0] < shares[1] < shares[2]


def test_rows_as_dicts_and_as_batch_padded_and_flat(tokenizer):
    rows = random_rows(40, seed=3, spans=True, step=7)
    padded = GuidedMLMCollator(tokenizer)(rows)
    assert_same(padded, GuidedMLMCollator(tokenizer)(RowBatch.from_rows(rows)))
    flat = GuidedMLMCollator(tokenizer, flat=True)(rows)
    real = padded["attention_mask"].bool()
    assert padded["input_ids"][real].tolist() == flat["input_ids"][0].tolist()
    assert padded["labels"][real].tolist() == flat["labels"][0].tolist()


def test_probabilities_take_no_call_off_the_count(tokenizer):
    rows = random_rows(10, spans=True)
    collator = GuidedMLMCollator(tokenizer)
    collator.probabilities(rows)
    assert_same(collator(rows), GuidedMLMCollator(tokenizer)(rows))


def test_spans_over_special_tokens_are_left_out_with_one_warning(tokenizer, caplog):
    collator = GuidedMLMCollator(tokenizer, flat=True)
    rows = [with_spans((5, 7, 1.0, 0), step=1)]
    with caplog.at_level(logging.WARNING):
        guided = collator.probabilities(rows)
        out = collator(rows)
    assert guided.probability == 0.3
    assert not masked_of(out)[[0, 6]].any()
    assert [record.getMessage()[:7] for record in caplog.records] == ["1 spans"]


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.integers(0, 9)), min_size=1, max_size=30).filter(
        lambda units: any(size for _, size in units)
    ),
    st.floats(0.01, 0.99),
    st.floats(0.01, 1.0),
)
@settings(max_examples=300, deadline=None)
def test_spread_budget_is_water_filling(units, share, cap):
    weights, sizes = (np.array(values) for values in zip(*units, strict=True))
    budget = share * sizes.sum()
    p = spread_budget(weights, sizes, budget, cap)
    assert (p * sizes).sum() == pytest.approx(budget, rel=1e-9)
    level = max(cap, share)
    assert p.max() <= level * (1 + 1e-12)
    # Proportional to the weights below the cap, and a unit at the cap has no smaller weight than one below it.
    real = sizes > 0
    below = real & (p < level * (1 - 1e-9))
    if below.any():
        scale = p[below] / weights[below]
        np.testing.assert_allclose(scale, scale[0], rtol=1e-9)
        assert (weights[real & ~below] * scale[0] >= level * (1 - 1e-6)).all()


def test_no_token_to_mask(tokenizer):
    row = {"input_ids": [2, 3], "word_ids": [-1, -1], "step": 0}
    weights = np.full(VOCAB, 2.0)
    out = GuidedMLMCollator(tokenizer, token_weights=weights, flat=True)([row])
    assert not masked_of(out).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_start": -0.1}, r"strengths must lie in \[0, 1\]"),
        ({"guidance_end": 1.5}, r"strengths must lie in \[0, 1\]"),
        ({"guidance_steps": -1}, "guidance_steps must not be negative"),
        ({"max_probability": 0.0}, r"max_probability must lie in \(0, 1\]"),
        ({"boost": -1.0}, "boost must be a finite number"),
        ({"boost": float("nan")}, "boost must be a finite number"),
        ({"kind_weights": {"colour": 1.0}}, r"unknown span kinds \['colour'\].*phrase, noun_phrase"),
        ({"kind_weights": {"brand": -1.0}}, "kind_weights must be finite"),
        ({"token_weights": np.ones(10)}, "one weight for each of 65 token ids"),
        ({"token_weights": np.zeros(VOCAB)}, "must be positive finite numbers"),
        ({"whole_word": True}, "whole_word"),
    ],
)
def test_bad_options(tokenizer, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        GuidedMLMCollator(tokenizer, **options)
