"""A trie of words, walked from all places of a text together, one level at a time.

An edge is the 64-bit key (node, word) in an open-addressing table and is compared exactly; its slot names the node that
it leads to. So a pool costs some tens of bytes a phrase, and a level of the walk is one look-up of many keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rexbert_hf.phrases.hashing import SlotTable

_ROOT = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)


class PhraseTrie:
    """Phrases as sequences of word numbers.

    Args:
        lengths: words of each phrase, `[P]`; those of 0 are not in the trie.
        words: numbers of the words of all phrases, one phrase after the other.
        scores: of the phrases, `[P]`; of equal phrases the one with the best score counts, then the first.
        num_words: all numbers are below.

    Example:
        >>> trie = PhraseTrie(np.array([1, 2]), np.array([5, 5, 3]), np.array([1.0, 1.0]), 9)
        >>> [(length, where.tolist(), phrase.tolist()) for length, where, phrase in trie.walk(np.array([5, 3, 5, -1]))]
        [(1, [0, 2], [0, 0]), (2, [0], [1])]
    """

    def __init__(self, lengths: np.ndarray, words: np.ndarray, scores: np.ndarray, num_words: int) -> None:
        levels, last = _levels(lengths, words)
        count = sum(len(edges) for edges in levels)
        self._edges = SlotTable(count)
        slot = self._insert(levels, count)
        # One more entry than words, so that the number -1 of an unknown word finds "no node" there.
        self._first = np.full(num_words + 1, -1, dtype=np.int32)
        self._first[(levels[0] & _ROOT).astype(np.int64)] = slot[: len(levels[0])]
        # The phrase that ends at a node, -1 for none; -2 - phrase where no phrase goes on, which ends the walk.
        self._ending = np.full(len(self._edges), -1, dtype=np.int32)
        # The last one written stays.
        order = np.lexsort((-np.arange(len(lengths)), scores))
        order = order[lengths[order] > 0]
        self._ending[slot[last[order]]] = order
        leaf = self._ending >= 0
        for edges in levels[1:]:
            leaf[slot[(edges >> _WORD_BITS).astype(np.int64)]] = False
        self._ending[leaf] = -2 - self._ending[leaf]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._edges.keys.nbytes + self._first.nbytes + self._ending.nbytes

    def _insert(self, levels: list[np.ndarray], count: int) -> np.ndarray:
        """Put all edges into the table; the slot of each node, int64 `[count]`."""
        slot = np.empty(count, dtype=np.int64)
        done = 0
        for level, edges in enumerate(levels):
            if level:
                parent = slot[(edges >> _WORD_BITS).astype(np.int64)].astype(np.uint64)
                edges = (parent << _WORD_BITS) | (edges & _ROOT)
            slot[done : done + len(edges)] = self._edges.insert(edges)
            done += len(edges)
        return slot

    def walk(self, words: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Find all phrases in a sequence of words.

        Args:
            words: numbers, -1 for what is in no phrase; the last one must be -1.

        Yields:
            A number of words from 1 on, the places where phrases of so many words begin, and those phrases.
        """
        node = self._first[words]
        place = np.flatnonzero(node >= 0)
        node = node[place]
        length = 1
        while len(place):
            mark = self._ending[node]
            ending = np.flatnonzero(mark != -1)
            phrase = mark[ending]
            yield length, place[ending], np.where(phrase < 0, -2 - phrase, phrase)
            word = words[place + length]  # There is one: the last is in no phrase.
            going = np.flatnonzero((word >= 0) & (mark >= -1))
            place = place[going]
            keys = (node[going].astype(np.uint64) << _WORD_BITS) | word[going].astype(np.uint64)
            node = self._edges.find(keys)
            inside = np.flatnonzero(node >= 0)
            place, node = place[inside], node[inside]
            length += 1


def _levels(lengths: np.ndarray, words: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Edges by level, the nodes numbered in order, and the node at the end of each phrase, int64 `[P]`."""
    begin = np.cumsum(lengths) - lengths
    active = np.flatnonzero(lengths)
    node = np.full(len(lengths), _ROOT, dtype=np.uint64)
    levels: list[np.ndarray] = []
    count = 0
    while len(active):
        keys = (node[active] << _WORD_BITS) | words[begin[active] + len(levels)].astype(np.uint64)
        edges, child = np.unique(keys, return_inverse=True)
        node[active] = (child + count).astype(np.uint64)
        levels.append(edges)
        count += len(edges)
        active = active[lengths[active] > len(levels)]
    return levels, node.astype(np.int64)
