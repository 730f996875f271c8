"""Spans over many short texts, each text at its own budget: the words to mask, spread over geometric spans.

A text of n words gets n * p words to mask, rounded at random so that the expectation is exact. Lengths are drawn from
the truncated geometric distribution until that many words are full (the last span is cut); spans and the words between
them are put in random order on a circle, which is turned by a uniform number of words. So every word of a text has the
same probability p, starts are uniform, spans do not touch, and short texts are not starved: with a budget of at least
one word a text always gets a span. (`SpanMaskingCollator` walks over long texts instead, where a text's border hardly
matters.)
"""

from __future__ import annotations

import numpy as np

from rexbert_hf.data.rows import offsets_of
from rexbert_hf.masking.draws import open_uniform


def geometric_table(geometric_p: float, max_words: int) -> np.ndarray:
    """Cumulative probabilities of the lengths 1 to `max_words`; the last is exactly 1.

    Args:
        geometric_p: probability that a span ends after a word.
        max_words: longest span.

    Raises:
        ValueError: if one is out of its range.

    Example:
        >>> geometric_table(0.5, 2).round(3).tolist()
        [0.667, 1.0]
    """
    if not 0 < geometric_p < 1:
        raise ValueError(f"geometric_p must lie between 0 and 1, got {geometric_p}")
    if max_words < 1:
        raise ValueError(f"max_words must be at least 1, got {max_words}")
    sums = np.cumsum((1 - geometric_p) ** np.arange(max_words))
    return sums / sums[-1]


def spread_spans(words: np.ndarray, probability: np.ndarray, table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose words to mask.

    Args:
        words: words of each text, int64 `[D]`; zero is allowed.
        probability: share of each text's words to mask, float64 `[D]` in [0, 1].
        table: of `geometric_table`.
        rng: the generator.

    Returns:
        bool, one a word, text after text.

    Example:
        >>> rng = np.random.Generator(np.random.SFC64(0))
        >>> chosen = spread_spans(np.array([4, 0, 10]), np.array([0.5, 0.5, 0.3]), geometric_table(0.2, 10), rng)
        >>> len(chosen), int(chosen[:4].sum()), int(chosen[4:].sum())
        (14, 2, 3)
    """
    exact = words * probability
    budget = np.floor(exact).astype(np.int64)
    budget += open_uniform(rng, len(words)) < exact - budget
    left = words - budget  # words that stay
    lengths, spans = _lengths(budget, left, table, rng)
    after = np.zeros(int(left.sum()), dtype=np.int64)  # words masked after each word that stays
    after[_choose(left, spans, rng)] = lengths
    runs = np.ones(2 * len(after), dtype=np.int64)
    runs[1::2] = after
    chosen = np.ones(int(words.sum()), dtype=bool)
    text = np.repeat(np.arange(len(words)), words)
    chosen[left[text] > 0] = np.repeat(np.tile([False, True], len(after)), runs)
    start = np.repeat(offsets_of(words)[:-1], words)
    turn = np.floor(open_uniform(rng, len(words)) * words).astype(np.int64)
    place = (np.arange(len(text)) - start + turn[text]) % np.repeat(words, words) + start
    turned = np.empty_like(chosen)
    turned[place] = chosen
    return turned


def _lengths(
    budget: np.ndarray, left: np.ndarray, table: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Span lengths of the texts that keep a word, text after text, and their number in each text."""
    open_ = np.where(left > 0, budget, 0)
    text = np.repeat(np.arange(len(budget)), open_)
    first = offsets_of(open_)[:-1][text]
    drawn = 1 + np.searchsorted(table, open_uniform(rng, len(text)), side="right")
    full = np.cumsum(drawn) - drawn  # words of the batch before each span
    full -= full[first] if len(full) else 0
    # Spans stand after words that stay, so there cannot be more of them: the last takes what is left.
    number = np.arange(len(text)) - first
    used = (full < budget[text]) & (number < left[text])
    spans = np.bincount(text[used], minlength=len(budget))
    rest = budget[text] - full
    is_last = number == left[text] - 1
    return np.where(is_last, rest, np.minimum(drawn, rest))[used], spans


def _choose(left: np.ndarray, spans: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of `spans[d]` of the `left[d]` words of each text, uniformly at random, ascending."""
    text = np.repeat(np.arange(len(left)), left)
    order = np.argsort(text + open_uniform(rng, len(text)))
    rank = np.arange(len(text)) - offsets_of(left)[:-1][text]
    return np.sort(order[rank < spans[text]])
