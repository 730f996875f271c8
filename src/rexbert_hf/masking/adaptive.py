"""Adaptive Hybrid Masking (E-BERT): each batch masked both ways, by words and by phrases; the trainer takes one.

Which mode a step takes depends on the loss of the step before, and loader workers prepare batches long before that is
known. So a batch carries both selections, and the choice is made where the loss is: in the trainer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking.mlm import draw_units
from rexbert_hf.masking.phrase_mode import PhraseMaskingCollator
from rexbert_hf.masking.units import number_units, word_starts

PHRASE_INPUTS = {"input_ids": "phrase_input_ids", "labels": "phrase_labels"}
"""Names of the phrase mode's tensors, by those that they replace."""
FALLBACK = "phrase_fallback"
"""Name of the mark of texts that have no phrase."""


class AdaptiveHybridMaskingCollator(PhraseMaskingCollator):
    """Mask rows in word mode (`input_ids`, `labels`) and in phrase mode (`phrase_input_ids`, `phrase_labels`).

    Word mode is whole-word masking, draw for draw that of `MLMCollator(whole_word=True)`; rows without `word_ids` are
    masked by tokens. Phrase mode is that of `PhraseMaskingCollator`. A text without a phrase is masked by words in both
    modes, with the same words; `phrase_fallback`, bool `[D]` (one a text), says which. A model takes one mode:
    `CurriculumTrainer` and `AdaptiveMaskingMixin` choose and drop the rest.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: expected share of the non-special tokens that is masked in each mode.
        kinds: the kinds of spans that are phrases (names of `SPAN_KINDS`).
        max_spread: as in `PhraseMaskingCollator`.
        **options: the options of `MaskingCollator`.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "red": 2, "shoe": 3}, "[MASK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", mask_token="[MASK]")
        >>> row = {"input_ids": [2, 3, 2, 3], "word_ids": [0, 1, 2, 3]}
        >>> span = {"span_start": [1], "span_end": [3], "span_score": [0.9], "span_kind": [0]}
        >>> batch = AdaptiveHybridMaskingCollator(tokenizer, 0.5, flat=True)([row | span])
        >>> batch["phrase_labels"].tolist(), batch["phrase_fallback"].tolist()
        ([[-100, 3, 2, -100]], [False])
    """

    def __call__(self, rows: Sequence[Mapping[str, Any]] | RowBatch) -> dict[str, Any]:
        """Mask and batch tokenised rows in both modes.

        Args:
            rows: row dicts or a `RowBatch`.

        Raises:
            ValueError: if there is no token, or a span is broken.
        """
        batch, rng = self.prepare(rows)
        input_ids = batch.input_ids.astype(np.int64)
        eligible = self.eligible(batch, input_ids)
        starts = word_starts(batch, eligible)
        words = draw_units(number_units(starts), self.mlm_probability, eligible, rng)
        out = self.emit(batch, *self.corrupt(input_ids.copy(), words, rng))
        phrases, without = self.select_phrases(batch, eligible, starts, rng, words.masked)
        second = self.emit(batch, *self.corrupt(input_ids, phrases, rng))
        out |= {name: second[key] for key, name in PHRASE_INPUTS.items()}
        return out | {FALLBACK: torch.from_numpy(without)}
