"""Plain masked language modelling: tokens or whole words, each with the same probability (BERT).

Whole words are drawn uniformly, each with `mlm_probability`, so the expected share of masked tokens is exact however
long words are, in place of adding words until a budget is full.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.draws import bernoulli
from rexbert_hf.masking.units import number_units, word_starts


class MLMCollator(MaskingCollator):
    """Mask tokens, or whole words, uniformly at random.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: expected share of the non-special tokens that is masked.
        whole_word: mask all tokens of a word or none; rows then need `word_ids`.
        **options: the options of `MaskingCollator`.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "red": 2, "shoe": 3}, "[MASK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", mask_token="[MASK]")
        >>> collator = MLMCollator(tokenizer, 0.5, flat=True)
        >>> batch = collator([{"input_ids": [2, 3, 3]}, {"input_ids": [3, 2]}])
        >>> batch["input_ids"].shape, batch["cu_seq_lens_q"].tolist(), batch["max_length_q"]
        (torch.Size([1, 5]), [0, 3, 5], 3)
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.3,
        *,
        whole_word: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        self.whole_word = whole_word

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose each token or word with `mlm_probability`.

        Raises:
            ValueError: if whole words are asked for and the rows have no `word_ids`.
        """
        if not self.whole_word:
            return Selection(bernoulli(rng, self.mlm_probability, len(eligible)) & eligible)
        if batch.word_ids is None:
            raise ValueError(
                "whole_word=True needs 'word_ids' in the rows: tokenise with them (the stock Trainer removes them "
                "unless remove_unused_columns=False), or set whole_word=False"
            )
        return draw_units(number_units(word_starts(batch, eligible)), self.mlm_probability, eligible, rng)


def draw_units(
    units: np.ndarray, probability: float | np.ndarray, eligible: np.ndarray, rng: np.random.Generator
) -> Selection:
    """Choose whole units at random.

    Args:
        units: int64 `[T]`, number of the unit of each token.
        probability: one for all units, or float64 `[U]`.
        eligible: bool `[T]`; other tokens stay out whatever their unit drew.
        rng: the generator.

    Example:
        >>> units = np.array([0, 1, 1, 2])
        >>> rng = np.random.Generator(np.random.SFC64(0))
        >>> draw_units(units, np.array([0.0, 1.0, 0.0]), np.ones(4, bool), rng).masked.tolist()
        [False, True, True, False]
    """
    masked = bernoulli(rng, probability, int(units[-1]) + 1)[units]
    masked &= eligible
    return Selection(masked, units)
