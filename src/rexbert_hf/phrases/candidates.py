"""Frequent n-grams of any length, counted level by level: an n-gram can be frequent only if both its parts are.

Each level walks twice over the text's ids. The first walk adds up hashed counts in a table of fixed size; the second
counts exactly what the table leaves possible. So memory follows the frequent n-grams, not the different ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rexbert_hf.phrases.spool import RARE, Spool

_BUCKETS_LOG2 = 24
_PENDING = 4_000_000
_PART = 30_000_000
"""Occurrences that are counted exactly in one go; more take further walks, not more memory."""


@dataclass
class Level:
    """Frequent n-grams of one length; arrays are `[C]`, rows sorted by (prefix, suffix).

    Attributes:
        counts: occurrences.
        prefix: row of the first n - 1 words in the level below.
        suffix: row of the last n - 1 words there.
    """

    counts: np.ndarray
    prefix: np.ndarray
    suffix: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)


@dataclass
class Candidates:
    """Words and frequent n-grams of a text.

    Attributes:
        words: folded words of level 1, most frequent first.
        levels: `levels[n - 1]` holds the n-grams; level 1 are the words.
        num_words: words of the text, rare ones included.
    """

    words: list[str]
    levels: list[Level]
    num_words: int
    _words_of: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def word_rows(self, size: int) -> np.ndarray:
        """Words of each n-gram of a length, as rows of level 1, int32 `[C, size]`."""
        if size == 1:
            return np.arange(len(self.words), dtype=np.int32)[:, None]
        if size not in self._words_of:
            level, below = self.levels[size - 1], self.word_rows(size - 1)
            self._words_of[size] = np.hstack([below[level.prefix], below[level.suffix][:, -1:]])
        return self._words_of[size]

    def texts(self, size: int) -> list[str]:
        """Folded n-grams of a length."""
        words = np.array(self.words, dtype=object)
        return [" ".join(row) for row in words[self.word_rows(size)]]


def count_candidates(spool: Spool, max_words: int, min_count: int) -> Candidates:
    """Count all n-grams of up to `max_words` + 1 words that occur `min_count` times or more.

    The level above `max_words` is counted for the sake of completeness: whether an n-gram stands alone or is always
    part of a longer one. The spool keeps where each n-gram occurs (`places`).

    Args:
        spool: the text; its ids become rows of level 1.
        max_words: longest phrase.
        min_count: the support.
    """
    vocabulary = spool.vocabulary
    order = np.argsort(-vocabulary.counts, kind="stable")
    order = order[vocabulary.counts[order] >= min_count]
    table = np.full(len(vocabulary), RARE, dtype=np.int32)
    table[order] = np.arange(len(order), dtype=np.int32)
    spool.map_ids(table)
    unused = np.zeros(len(order), dtype=np.int32)
    levels = [Level(vocabulary.counts[order], unused, unused)]
    for size in range(2, max_words + 2):
        levels.append(_next_level(spool, size, levels[-1], min_count))
    return Candidates([vocabulary.spellings[i] for i in order.tolist()], levels, spool.num_words)


def places(spool: Spool, size: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Where frequent n-grams of a length occur in a chunk: position of the first word, row in the level.

    Args:
        spool: as `count_candidates` left it.
        size: words of the n-gram.
        index: the chunk.
    """
    if size == 1:
        ids = spool.load("ids", index)
        at = np.flatnonzero(ids >= 0).astype(np.int32)
        return at, ids[at]
    return spool.load(f"at{size}", index), spool.load(f"row{size}", index)


def _next_level(spool: Spool, size: int, below: Level, min_count: int) -> Level:
    width = np.uint64(max(1, len(below)))
    possible, tallied = _possible(spool, size, width, min_count)
    parts = 1 + int(tallied // _PART)
    found = [_count_part(spool, size, width, min_count, possible, part, parts) for part in range(parts)]
    keys, counts = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]

    def locate(index: int) -> None:
        at, pairs = _pairs(spool, size, width, index)
        kept = np.flatnonzero(possible[_bucket(pairs)])
        at, pairs = at[kept], pairs[kept]
        rows = np.minimum(np.searchsorted(keys, pairs), max(0, len(keys) - 1))
        kept = np.flatnonzero(keys[rows] == pairs) if len(keys) else rows[:0]
        spool.save(f"at{size}", index, at[kept])
        spool.save(f"row{size}", index, rows[kept].astype(np.int32))

    for _ in spool.map(locate, range(len(spool))):
        pass
    return Level(counts, (keys // width).astype(np.int32), (keys % width).astype(np.int32))


def _possible(spool: Spool, size: int, width: np.uint64, min_count: int) -> tuple[np.ndarray, int]:
    """Buckets whose pairs may be frequent, bool, and how many pairs fall into them."""
    buckets = np.zeros(1 << _BUCKETS_LOG2, dtype=np.int32)
    for hashed in spool.map(lambda index: _bucket(_pairs(spool, size, width, index)[1]), range(len(spool))):
        np.add.at(buckets, hashed, 1)
    possible = buckets >= min_count
    return possible, int(buckets[possible].sum(dtype=np.int64))


def _count_part(
    spool: Spool, size: int, width: np.uint64, min_count: int, possible: np.ndarray, part: int, parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frequent pairs of one part of the buckets, and their counts."""

    def keys_of(index: int) -> np.ndarray:
        keys = _pairs(spool, size, width, index)[1]
        hashed = _bucket(keys)
        wanted = possible[hashed]
        return keys[wanted if parts == 1 else wanted & (hashed % parts == part)]

    tally = _Tally()
    for keys in spool.map(keys_of, range(len(spool))):
        tally.add(keys)
    return tally.result(min_count)


def _bucket(keys: np.ndarray) -> np.ndarray:
    return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BUCKETS_LOG2)).astype(np.int64)


def _pairs(spool: Spool, size: int, width: np.uint64, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Where two neighbouring (n-1)-grams of a chunk start, and the key of their pair, uint64."""
    at, rows = places(spool, size - 1, index)
    # Neighbours in the list at distance 1: the second begins one word after the first.
    first = np.flatnonzero(at[1:] - at[:-1] == 1)
    return at[first], rows[first].astype(np.uint64) * width + rows[first + 1].astype(np.uint64)


class _Tally:
    """Exact counts of keys; what comes in is merged once a few million are waiting."""

    def __init__(self) -> None:
        self._keys, self._counts = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        self._waiting: list[np.ndarray] = []
        self._size = 0

    def add(self, keys: np.ndarray) -> None:
        self._waiting.append(keys)
        self._size += len(keys)
        if self._size >= _PENDING:
            self._merge()

    def _merge(self) -> None:
        if not self._waiting:
            return
        keys, counts = np.unique(np.concatenate(self._waiting), return_counts=True)
        self._waiting, self._size = [], 0
        together = np.concatenate([self._keys, keys])
        self._keys, inverse = np.unique(together, return_inverse=True)
        both = np.concatenate([self._counts, counts])
        self._counts = np.bincount(inverse, weights=both, minlength=len(self._keys)).astype(np.int64)

    def result(self, min_count: int) -> tuple[np.ndarray, np.ndarray]:
        self._merge()
        kept = self._counts >= min_count
        return self._keys[kept], self._counts[kept]
