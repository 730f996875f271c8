"""Cut the text into phrases and words in the likeliest way, and count each phrase only where it is one of the pieces.

"vector machine" is frequent inside "support vector machine" and hardly ever on its own: segmentation leaves it the
occurrences that are its own (AutoPhrase's rectified counts). A piece costs -log of its share of the text and of its
quality; the cheapest cut of each run of words comes from dynamic programming over all runs of equal length at once.
"""

from __future__ import annotations

import numpy as np

from rexbert_hf.phrases.candidates import Candidates, places
from rexbert_hf.phrases.spool import Spool

_BLOCK = 50_000


def rectified_counts(
    spool: Spool, candidates: Candidates, scores: list[np.ndarray], max_words: int, floor: float = 0.05
) -> list[np.ndarray]:
    """Count n-grams where the best cut of their run makes them a piece, int64 by length.

    Args:
        spool: as `count_candidates` left it.
        candidates: the n-grams.
        scores: quality in [0, 1] by length, `scores[n - 1]` `[C]`; that of words (n = 1) is not looked at.
        max_words: longest piece.
        floor: phrases of lower quality are never a piece.
    """
    weights = _weights(candidates, scores, max_words, floor)
    totals = [np.zeros(len(level), dtype=np.int64) for level in candidates.levels[:max_words]]

    def count_chunk(index: int) -> list[np.ndarray]:
        ids = spool.load("ids", index)
        rows = np.full((max_words, len(ids)), -1, dtype=np.int32)
        for size in range(1, max_words + 1):
            at, row = places(spool, size, index)
            rows[size - 1, at] = row
        taken = _cut(ids, rows, weights)
        return [np.bincount(rows[size, at], minlength=len(totals[size])) for size, at in enumerate(taken)]

    for found in spool.map(count_chunk, range(len(spool))):
        for total, counts in zip(totals, found, strict=True):
            total += counts
    return totals


def _weights(candidates: Candidates, scores: list[np.ndarray], max_words: int, floor: float) -> list[np.ndarray]:
    """log(share x quality) of each piece, float32; -inf for what may not be one."""
    total = max(1, candidates.num_words)
    weights = [np.log(candidates.levels[0].counts / total * 0.5)]
    for size in range(2, max_words + 1):
        quality = scores[size - 1]
        weight = np.log(candidates.levels[size - 1].counts / total * np.maximum(quality, 1e-9))
        weights.append(np.where(quality >= floor, weight, -np.inf))
    # One more row, for "no n-gram starts here": row -1.
    return [np.append(weight, -np.inf).astype(np.float32) for weight in weights]


def _cut(ids: np.ndarray, rows: np.ndarray, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Positions at which a piece of each size starts."""
    word = np.concatenate([[False], ids >= 0, [False]])
    change = np.flatnonzero(word[1:] != word[:-1])
    starts, lengths = change[0::2], change[1::2] - change[0::2]
    taken: list[list[np.ndarray]] = [[] for _ in weights]
    order = np.argsort(lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    borders = np.searchsorted(lengths, np.unique(lengths), side="right")
    first = 0
    for border in borders.tolist():
        for block in range(first, border, _BLOCK):
            _cut_block(starts[block : min(border, block + _BLOCK)], int(lengths[first]), rows, weights, taken)
        first = border
    return [np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64) for parts in taken]


def _cut_block(
    starts: np.ndarray, length: int, rows: np.ndarray, weights: list[np.ndarray], taken: list[list[np.ndarray]]
) -> None:
    """Cut runs of one length; `best[t]` is the weight of the best cut of the first t words."""
    best = np.full((length + 1, len(starts)), -np.inf, dtype=np.float32)
    best[0] = 0.0
    choice = np.zeros((length + 1, len(starts)), dtype=np.int8)
    for end in range(1, length + 1):
        for size in range(1, min(len(weights), end) + 1):
            value = best[end - size] + weights[size - 1][rows[size - 1, starts + end - size]]
            better = value > best[end]
            best[end][better] = value[better]
            choice[end][better] = size
    left = np.full(len(starts), length)
    column = np.arange(len(starts))
    while len(column):
        size = choice[left[column], column]
        left[column] -= size
        for words in range(1, len(weights) + 1):
            taken[words - 1].append(starts[column[size == words]] + left[column[size == words]])
        column = column[left[column] > 0]
