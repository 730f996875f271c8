"""Runs of words that were seen before: shops repeat whole sentences, and mining counts each of them once.

Ten colours of one article share a description; without this its accidental neighbours would count as phrases.
"""

from __future__ import annotations

import numpy as np

from rexbert_hf.phrases.words import ranges

_SLOTS_LOG2 = 22


class SeenRuns:
    """Tells runs of words that came before, by 64-bit keys in a table of fixed size; what is overwritten is forgotten.

    Args:
        min_words: shorter runs are never repeated ones: "table lamp" alone says that it is a phrase, each time.
    """

    def __init__(self, min_words: int) -> None:
        self.min_words = min_words
        self._table = np.zeros(1 << _SLOTS_LOG2, dtype=np.uint64)

    def repeated(self, hashes: np.ndarray, is_word: np.ndarray) -> np.ndarray:
        """Which units belong to a run seen before, bool `[U]`.

        Args:
            hashes: of all units, `[U]`.
            is_word: which units are words, bool `[U]`; the last is none.
        """
        change = np.flatnonzero(np.diff(is_word, prepend=False))
        starts, ends = change[0::2], change[1::2]
        long = ends - starts >= self.min_words
        starts, ends = starts[long], ends[long]
        if not len(starts):
            return np.zeros(len(is_word), dtype=bool)
        units, offsets = ranges(starts, ends - starts)
        place = (units - np.repeat(starts, ends - starts)).astype(np.uint64)
        # A sum over (hash x odd number by position), so order counts.
        keys = np.add.reduceat(hashes[units] * (np.uint64(2) * place + np.uint64(1)), offsets[:-1])
        slots = (keys >> np.uint64(64 - _SLOTS_LOG2)).astype(np.int64)
        new = np.zeros(len(keys), dtype=bool)
        new[np.unique(keys, return_index=True)[1]] = True
        new &= self._table[slots] != keys
        self._table[slots[new]] = keys[new]
        border = np.zeros(len(is_word) + 1, dtype=np.int64)
        border[starts[~new]] += 1
        border[ends[~new]] -= 1
        return np.cumsum(border)[:-1] > 0
