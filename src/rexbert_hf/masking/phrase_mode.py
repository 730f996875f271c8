"""Phrase masking: whole phrases, sampled by the softmax of their scores until the budget is met (E-BERT, equation 1).

Sampling one phrase after the other, each with the softmax of the scores of those that are left, is the same as adding
Gumbel noise to the scores and taking them in falling order; so the whole batch is sampled at once. A phrase that
overlaps one taken before it is no longer there to be taken.

The budget holds in expectation, not by "until approximately 15 %": the phrase that would cross the border of its
text's budget is masked with the probability that makes the expected number of masked tokens exactly the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import SPAN_KINDS, RowBatch
from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.draws import open_uniform
from rexbert_hf.masking.mlm import draw_units
from rexbert_hf.masking.spans import LEFT_OUT, Spans, disjoint_spans, spans_of_words
from rexbert_hf.masking.units import number_units, word_starts


class PhraseMaskingCollator(MaskingCollator):
    """Mask whole phrases; the phrase mode of `AdaptiveHybridMaskingCollator` alone.

    A text without a phrase is masked by whole words, with the same budget: counted in `stats`, and warned about once
    where no text of a batch has one. A text whose phrases are shorter than its budget leaves the rest to the other
    texts of the batch, each of which takes at most `max_spread` times its own; what then is missing is counted too.

    Attributes:
        stats: of the last call: `texts_without_phrases`, and `phrase_tokens_missing`, the tokens that the budget has
            beyond what the phrases can fill.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: expected share of the non-special tokens that is masked.
        kinds: the kinds of spans that are phrases (names of `SPAN_KINDS`).
        max_spread: how much more than its own share a text may take; 1 keeps every text to its own.
        **options: the options of `MaskingCollator`. `per_span=True` draws once a phrase whether it is masked, replaced
            or kept, as the authors' code does; the paper says once a token.

    Raises:
        ValueError: if a kind has no such name, or `max_spread` is below 1.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "red": 2, "shoe": 3}, "[MASK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", mask_token="[MASK]")
        >>> row = {"input_ids": [2, 3, 2, 3], "word_ids": [0, 1, 2, 3]}
        >>> span = {"span_start": [1], "span_end": [3], "span_score": [0.9], "span_kind": [0]}
        >>> PhraseMaskingCollator(tokenizer, 0.5)([row | span])["labels"].tolist()
        [[-100, 3, 2, -100]]
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.15,
        *,
        kinds: Sequence[str] = ("phrase", "noun_phrase"),
        max_spread: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        unknown = sorted(set(kinds) - set(SPAN_KINDS))
        if unknown or not kinds or isinstance(kinds, str):
            raise ValueError(f"kinds must list names of {', '.join(SPAN_KINDS)}; got {kinds}")
        if not max_spread >= 1:
            raise ValueError(f"max_spread must be at least 1, got {max_spread}")
        self.kinds = tuple(kinds)
        self.max_spread = float(max_spread)
        self._is_phrase = np.isin(np.arange(len(SPAN_KINDS)), [SPAN_KINDS.index(kind) for kind in kinds])

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose phrases, and words of texts without one."""
        return self.select_phrases(batch, eligible, word_starts(batch, eligible), rng)[0]

    def select_phrases(
        self,
        batch: RowBatch,
        eligible: np.ndarray,
        starts: np.ndarray,
        rng: np.random.Generator,
        words: np.ndarray | None = None,
    ) -> tuple[Selection, np.ndarray]:
        """Choose phrases; also says which texts have none.

        Args:
            batch: the rows.
            eligible: bool `[T]`, False for special tokens.
            starts: bool `[T]`, the first token of each word.
            rng: the generator of this call.
            words: bool `[T]`, a whole-word selection to use for texts without a phrase; None draws one.

        Returns:
            The selection, and bool `[D]`: the texts that were masked by words.
        """
        spans, left_out = spans_of_words(batch, starts, eligible, self._is_phrase)
        if left_out:
            self.warn_once(LEFT_OUT, left_out)
        tokens = np.diff(np.concatenate([[0], np.cumsum(eligible)])[batch.offsets])
        chosen, covered, missing = sample_phrases(
            spans, batch.offsets, self.mlm_probability * tokens, self.max_spread, rng
        )
        masked = np.zeros(len(eligible), dtype=bool)
        sizes = chosen.end - chosen.start
        masked[ranges(chosen.start, sizes)] = True
        without = ~covered & (tokens > 0)
        self.stats = {"texts_without_phrases": int(without.sum()), "phrase_tokens_missing": round(missing)}
        if without.any():
            if not covered.any():
                self.warn_once(_NO_PHRASES, ", ".join(self.kinds))
            if words is None:
                words = draw_units(number_units(starts), self.mlm_probability, eligible, rng).masked
            masked |= words & np.repeat(without, batch.lengths)
        if not self.per_span:
            return Selection(masked), without
        begins = starts.copy()
        begins[ranges(chosen.start + 1, sizes - 1)] = False
        return Selection(masked, number_units(begins)), without


_NO_PHRASES = (
    "no text of a batch has a phrase (spans of kind %s): all are masked by whole words (said once; tokenise the text "
    "with a phrase pool; the stock Trainer removes spans unless remove_unused_columns=False)"
)


def sample_phrases(
    spans: Spans, offsets: np.ndarray, budgets: np.ndarray, max_spread: float, rng: np.random.Generator
) -> tuple[Spans, np.ndarray, float]:
    """Sample phrases of all texts by the softmax of their scores, without replacement.

    Args:
        spans: sorted by start; they may overlap.
        offsets: int `[D + 1]`, borders of the texts.
        budgets: float `[D]`, tokens to mask in each text.
        max_spread: how much more than its own budget a text may take over from others.
        rng: the generator.

    Returns:
        The phrases to mask; bool `[D]`, the texts that have phrases; and the tokens of their budgets that no phrase
        can fill.

    Example:
        >>> spans = Spans(np.array([0, 4]), np.array([2, 6]), np.array([0.5, 0.9]), np.array([0, 0]))
        >>> rng = np.random.Generator(np.random.SFC64(0))
        >>> chosen, covered, missing = sample_phrases(spans, np.array([0, 8, 12]), np.array([4.0, 2.0]), 1.0, rng)
        >>> sorted(chosen.start.tolist()), covered.tolist(), missing
        ([0, 4], [True, False], 0.0)
    """
    count = len(budgets)
    if not len(spans.start):
        return spans, np.zeros(count, dtype=bool), 0.0
    keys = spans.score - np.log(-np.log(open_uniform(rng, len(spans.start))))
    left = np.flatnonzero(disjoint_spans(spans.start, spans.end, keys))
    row = np.searchsorted(offsets, spans.start[left], side="right") - 1
    order = np.lexsort((-keys[left], row))
    left, row = left[order], row[order]
    sizes = spans.end[left] - spans.start[left]
    totals = np.bincount(row, weights=sizes, minlength=count)
    covered = totals > 0
    shares, missing = spread_over_texts(totals, np.where(covered, budgets, 0.0), max_spread)
    before = np.cumsum(sizes) - sizes
    before -= before[np.searchsorted(row, row)]  # within the text
    # The phrase at the border of the budget gets the probability that the budget still has room for.
    room = np.clip((shares[row] - before) / sizes, 0.0, 1.0)
    return spans.subset(left[open_uniform(rng, len(left)) < room]), covered, missing


def spread_over_texts(capacity: np.ndarray, wanted: np.ndarray, max_spread: float) -> tuple[np.ndarray, float]:
    """Budgets min(capacity, c * wanted) with one c in [1, max_spread] that keeps their sum, and what cannot be kept.

    Args:
        capacity: float `[D]`, tokens of phrases in each text.
        wanted: float `[D]`, tokens of each text's own budget.
        max_spread: largest c.

    Example:
        >>> spread_over_texts(np.array([1.0, 9.0]), np.array([2.0, 4.0]), 2.0)
        (array([1., 5.]), 0.0)
    """
    own = np.minimum(capacity, wanted)
    short = float(wanted.sum() - own.sum())
    if short <= 0 or max_spread == 1:
        return own, max(short, 0.0)
    most = np.minimum(capacity, max_spread * wanted)
    texts = np.flatnonzero(wanted)
    texts = texts[np.argsort(most[texts] / wanted[texts])]
    # c for the case that the first i texts in this order are full.
    filled = np.cumsum(most[texts]) - most[texts]
    factor = (wanted.sum() - filled) / np.cumsum(wanted[texts][::-1])[::-1]
    fits = np.flatnonzero(factor * wanted[texts] <= most[texts])
    if not len(fits):
        return most, float(wanted.sum() - most.sum())
    return np.minimum(most, factor[fits[0]] * wanted), 0.0
