"""Guided masked language modelling: spans that carry product knowledge are masked more often, and whole.

RexBERT's paper names "Guided MLM" and its code is not public: this is our definition. A batch is cut into units:
words, merged into a span where one covers them. Unit u gets a weight

    w_u = t_u * (1 + strength * boost * kind_weight * score)        (a span; a plain word has w_u = t_u)
    t_u = 1 + strength * (mean token weight of u - 1)               (1 without `token_weights`)

and is masked as a whole with probability min(cap, c * w_u), where c makes the expected share of masked tokens exactly
`mlm_probability` over the batch. So guidance moves the budget and never changes it. The strength, in [0, 1], rises
linearly over the phase. Without spans and token weights this is plain (whole-word) masking, draw for draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import SPAN_KINDS, RowBatch
from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.mlm import draw_units
from rexbert_hf.masking.spans import LEFT_OUT, Spans, whole_spans
from rexbert_hf.masking.units import number_units, word_starts


class GuidedUnits(NamedTuple):
    """Units of a batch and how likely each is masked.

    Attributes:
        units: int64 `[T]`, number of the unit of each token.
        probability: float64 `[U]`, or one float for all units when nothing guides. Units of special tokens have one
            too, which nobody uses.
    """

    units: np.ndarray
    probability: np.ndarray | float


class GuidedMLMCollator(MaskingCollator):
    """Mask whole spans and words, spans more often than words, at an unchanged budget.

    Overlapping spans: the higher score is kept, then the longer, then the earlier. A span that cuts a word grows to
    the word's border. A span over a special token or a row's border is left out (and warned about once). Rows with
    neither `word_ids` nor spans are masked by tokens, with one warning: the stock Trainer takes both away unless
    `remove_unused_columns=False`.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: expected share of the non-special tokens that is masked.
        boost: weight that a span of score 1 gains over a plain word at full strength: 2 makes it three times as
            likely to be masked.
        guidance_start: strength at `first_step`, in [0, 1].
        guidance_end: strength from `first_step + guidance_steps` on, in [0, 1].
        guidance_steps: steps of the linear rise; 0 means `guidance_end` throughout.
        first_step: the step at which the phase begins, as steps count over all phases.
        max_probability: cap on a unit's probability, so that its context is sometimes there and sometimes not;
            raised to what the budget needs where `mlm_probability` is above it.
        kind_weights: factor of the boost by span kind (names of `SPAN_KINDS`), 1 for kinds not named.
        token_weights: float `[vocabulary]`, positive weight of each token id, for example the table of
            `InverseDocumentFrequency`; a unit takes the mean over its tokens. Those of special tokens do not matter.
        **options: the options of `MaskingCollator`.

    Raises:
        ValueError: if a weight, strength or cap is out of its range, or a kind has no such name.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "red": 2, "shoe": 3}, "[MASK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", mask_token="[MASK]")
        >>> collator = GuidedMLMCollator(tokenizer, 0.3, boost=2.0)
        >>> row = {"input_ids": [2, 3, 2, 3], "word_ids": [0, 1, 2, 3]}
        >>> span = {"span_start": [0], "span_end": [2], "span_score": [1.0], "span_kind": [0]}
        >>> collator.probabilities([row | span]).probability.round(3).tolist()
        [0.45, 0.15, 0.15]
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.3,
        *,
        boost: float = 2.0,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        guidance_steps: int = 0,
        first_step: int = 0,
        max_probability: float = 0.8,
        kind_weights: Mapping[str, float] | None = None,
        token_weights: np.ndarray | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        if not (0 <= guidance_start <= 1 and 0 <= guidance_end <= 1):
            raise ValueError(f"guidance strengths must lie in [0, 1], got {guidance_start} and {guidance_end}")
        if guidance_steps < 0:
            raise ValueError(f"guidance_steps must not be negative, got {guidance_steps}")
        if not 0 < max_probability <= 1:
            raise ValueError(f"max_probability must lie in (0, 1], got {max_probability}")
        if not 0 <= boost < np.inf:
            raise ValueError(f"boost must be a finite number of at least 0, got {boost}")
        self.boost = boost
        self.guidance_start, self.guidance_end = guidance_start, guidance_end
        self.guidance_steps, self.first_step = guidance_steps, first_step
        self.max_probability = max_probability
        self._kind_weights = _kind_table(kind_weights or {})
        self._token_weights = None if token_weights is None else _token_table(token_weights, self._special[:-1])

    def strength(self, step: int) -> float:
        """Guidance strength at a global step, in [0, 1]."""
        if not self.guidance_steps:
            return self.guidance_end
        progress = min(max((step - self.first_step) / self.guidance_steps, 0.0), 1.0)
        return self.guidance_start + progress * (self.guidance_end - self.guidance_start)

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose whole units with their guided probabilities."""
        units, probability = self._guide(batch, eligible)
        return draw_units(units, probability, eligible, rng)

    def probabilities(self, rows: Any) -> GuidedUnits:
        """Units of rows and their probabilities, without masking anything; takes no call off the count.

        Args:
            rows: as for a call; without `step` they count as the first step of the phase.
        """
        batch = RowBatch.from_rows(rows)
        return self._guide(batch, self.eligible(batch, batch.input_ids.astype(np.int64)))

    def _guide(self, batch: RowBatch, eligible: np.ndarray) -> GuidedUnits:
        self.warn_without_words(batch)
        starts = word_starts(batch, eligible)
        spans = self._spans(batch, starts, eligible)
        if self._token_weights is None and not len(spans.start):
            return GuidedUnits(number_units(starts), self.mlm_probability)
        sizes = spans.end - spans.start
        starts[ranges(spans.start + 1, sizes - 1)] = False
        units = number_units(starts)
        strength = self.strength(self.first_step if batch.step is None else batch.step)
        gains = 1.0 + strength * self.boost * self._kind_weights[spans.kind] * spans.score
        of_span = units[spans.start]
        count = np.count_nonzero(eligible)
        budget = self.mlm_probability * count
        if self._token_weights is not None:
            weights = 1.0 + strength * (_unit_means(self._token_weights, batch, units) - 1.0)
            weights[of_span] *= gains
            sizes = np.bincount(units[eligible], minlength=len(weights))
            return GuidedUnits(units, spread_budget(weights, sizes, budget, self.max_probability))
        # All plain words weigh 1, so together they are one entry of the budget.
        entries = np.append(gains, 1.0), np.append(sizes, count - sizes.sum())
        spread = spread_budget(*entries, budget, self.max_probability)
        probability = np.full(int(units[-1]) + 1, spread[-1])
        probability[of_span] = spread[:-1]
        return GuidedUnits(units, probability)

    def _spans(self, batch: RowBatch, starts: np.ndarray, eligible: np.ndarray) -> Spans:
        spans, left_out = whole_spans(batch, starts, eligible)
        if left_out:
            self.warn_once(LEFT_OUT, left_out)
        return spans


def _unit_means(token_weights: np.ndarray, batch: RowBatch, units: np.ndarray) -> np.ndarray:
    """Mean token weight of each unit, float64 `[U]`."""
    weights = token_weights.take(batch.input_ids, mode="clip")
    return np.bincount(units, weights=weights) / np.bincount(units)


def spread_budget(weights: np.ndarray, sizes: np.ndarray, budget: float, cap: float) -> np.ndarray:
    """Probabilities `min(cap, c * weights)` with c such that the expected size `sum(p * sizes)` is the budget.

    Fills the capped ones first and gives the rest to the others until no new one exceeds the cap; exact to rounding.

    Args:
        weights: positive, float64 `[U]`.
        sizes: tokens of each unit `[U]`; an entry of size 0 takes no part.
        budget: expected number of tokens, below the sum of the sizes.
        cap: largest probability; raised to `budget / sum(sizes)` where it is lower.

    Example:
        >>> spread_budget(np.array([8.0, 1.0, 1.0]), np.array([1, 1, 2]), budget=1.55, cap=0.8).tolist()
        [0.8, 0.25, 0.25]
    """
    total = sizes.sum()
    if budget >= cap * total * (1 - 1e-12):
        return np.full(len(weights), budget / total if total else 0.0)
    mass = weights * sizes
    capped = np.zeros(len(weights), dtype=bool)
    while True:
        scale = (budget - cap * sizes[capped].sum()) / mass[~capped].sum()
        over = (weights * scale > cap) & ~capped & (sizes > 0)
        if not over.any():
            return np.where(capped, cap, np.minimum(weights * scale, cap))
        capped |= over


def _kind_table(kind_weights: Mapping[str, float]) -> np.ndarray:
    unknown = sorted(set(kind_weights) - set(SPAN_KINDS))
    if unknown:
        raise ValueError(f"kind_weights names unknown span kinds {unknown}; the kinds are {', '.join(SPAN_KINDS)}")
    table = np.array([float(kind_weights.get(kind, 1.0)) for kind in SPAN_KINDS])
    if not ((table >= 0) & (table < np.inf)).all():
        raise ValueError(f"kind_weights must be finite numbers of at least 0, got {dict(kind_weights)}")
    return table


def _token_table(token_weights: np.ndarray, special: np.ndarray) -> np.ndarray:
    table = np.array(token_weights, dtype=np.float64)
    if table.ndim != 1 or len(table) < len(special):
        raise ValueError(
            f"token_weights must hold one weight for each of {len(special)} token ids, got shape {table.shape}"
        )
    table[: len(special)][special] = 1.0  # never masked: tables have 0 there
    if not ((table > 0) & (table < np.inf)).all():
        raise ValueError(
            "token_weights must be positive finite numbers: give uninformative tokens a small weight, not 0"
        )
    return table
