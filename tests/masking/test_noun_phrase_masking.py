from __future__ import annotations

import numpy as np
from masking_cases import masked_of
from test_masking_adaptive import phrase_row

from rexbert_hf import NounPhraseCollator


def test_only_noun_phrases_are_masked(tokenizer):
    row = phrase_row(30, (0, 3, 0.9), (5, 8, 0.5), (12, 14, 0.5))
    row["span_kind"] = [0, 1, 1]
    collator = NounPhraseCollator(tokenizer, flat=True)
    counts = sum(masked_of(collator([{**row, "step": step}])).astype(int) for step in range(400))
    assert np.flatnonzero(counts).tolist() == [6, 7, 8, 13, 14]
    # 4.5 tokens of the 5: both, or the one at the border of the budget left out in 1/6 or 1/4 of the draws.
    assert abs(counts.sum() / 400 - 4.5) < 5 * np.sqrt(1.5 / 400)


def test_texts_without_noun_phrases_are_counted(tokenizer):
    collator = NounPhraseCollator(tokenizer, flat=True)
    collator([phrase_row(30, (0, 3, 0.9)), phrase_row(30, (0, 3, 0.9), kind=1), phrase_row(30)])
    assert collator.stats["texts_without_phrases"] == 2
