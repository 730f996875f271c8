"""Masking of random spans of whole words (SpanBERT): geometric lengths, uniform starts.

SpanBERT draws spans until a budget is full, skips what overlaps and cuts the last one. Here masked spans and the gaps
between them alternate along the words of the batch: span lengths are drawn from the truncated geometric distribution,
gaps from the geometric one with the mean that makes the share of masked words `mlm_probability`, and the walk starts in
its stationary state. So every word is masked with exactly that probability, lengths follow their distribution, two
spans never touch, and nothing is drawn twice. Only a text's border cuts a span.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.draws import open_uniform
from rexbert_hf.masking.units import number_units, row_starts, word_starts


class SpanMaskingCollator(MaskingCollator):
    """Mask random spans of whole words; spans of the rows are not looked at.

    Rows without `word_ids` are masked by spans of tokens, which is warned about once where they have no spans either:
    the stock Trainer takes both away unless `remove_unused_columns=False`.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: expected share of the non-special tokens that is masked.
        geometric_p: of the geometric distribution of lengths, in words; .2 and 10 give a mean of 3.8 words.
        max_words: longest span.
        **options: the options of `MaskingCollator`; with `per_span=True`, as in SpanBERT, the draw between mask,
            random and kept is one a span.

    Raises:
        ValueError: if `geometric_p` or `max_words` is out of its range.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "red": 2, "shoe": 3}, "[MASK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", mask_token="[MASK]")
        >>> collator = SpanMaskingCollator(tokenizer, max_words=10)
        >>> round(collator.mean_words, 2)
        3.8
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.15,
        *,
        geometric_p: float = 0.2,
        max_words: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        if not 0 < geometric_p < 1:
            raise ValueError(f"geometric_p must lie between 0 and 1, got {geometric_p}")
        if max_words < 1:
            raise ValueError(f"max_words must be at least 1, got {max_words}")
        law = (1 - geometric_p) ** np.arange(max_words)
        law /= law.sum()
        self.mean_words = float((law * np.arange(1, max_words + 1)).sum())
        self._lengths = _table(law)
        # Words left of a span that is met at a random word: P(length >= k) / mean.
        self._rest = _table(np.cumsum(law[::-1])[::-1])
        gap = self.mean_words * (1 - mlm_probability) / mlm_probability
        if gap < 1:
            raise ValueError(
                f"mlm_probability={mlm_probability} leaves less than a word between spans of {self.mean_words:.1f} "
                "words: lower it, or max_words"
            )
        with np.errstate(divide="ignore"):  # a gap of one word exactly
            self._log_stay = np.log(1 - 1 / gap)

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose the words inside the spans of a walk along the batch."""
        self.warn_without_words(batch)
        starts = word_starts(batch, eligible)
        first = np.flatnonzero(starts & eligible)  # of each word
        inside = self._walk(len(first), rng)
        units = number_units(starts)
        of_unit = np.zeros(int(units[-1]) + 1, dtype=bool)
        of_unit[units[first]] = inside
        masked = of_unit[units]
        if not self.per_span:
            return Selection(masked)
        # A span goes on from word to word within its text.
        changes = np.ones(len(starts), dtype=bool)
        changes[1:] = ~(masked[1:] & masked[:-1])
        return Selection(masked, number_units(changes | row_starts(batch)))

    def _walk(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Mark the masked ones of `count` words, bool."""
        begins_inside = bool(open_uniform(rng, 1)[0] < self.mlm_probability)
        pairs = int(1.2 * self.mlm_probability * count / self.mean_words) + 8
        borders = np.zeros(0, dtype=np.int64)
        end = 0
        while end < count:
            spans = 1 + np.searchsorted(self._lengths, open_uniform(rng, pairs), side="right")
            gaps = 1 + (np.log(open_uniform(rng, pairs)) / self._log_stay).astype(np.int64)
            if begins_inside and not len(borders):
                spans[0] = 1 + np.searchsorted(self._rest, open_uniform(rng, 1)[0], side="right")
            runs = np.stack([spans, gaps] if begins_inside else [gaps, spans], axis=1).ravel()
            borders = np.append(borders, end + np.cumsum(runs))
            end = int(borders[-1])
        flips = np.bincount(borders[borders < count], minlength=count)
        return (np.cumsum(flips) + begins_inside) % 2 == 1


def _table(weights: np.ndarray) -> np.ndarray:
    """Cumulative probabilities whose last is exactly 1."""
    sums = np.cumsum(weights)
    return sums / sums[-1]
