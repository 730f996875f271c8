"""The words of a phrase pool by their hash, with their characters beside them, so that no hash is trusted alone.

Two different words of the pool with one hash are an error when it is built. A word of a text that shares its hash with
one of the pool is told from it by `differing`, which compares characters.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rexbert_hf.phrases.hashing import SlotTable
from rexbert_hf.phrases.words import KIND_BREAK, Words, decoded, ranges


class WordIds:
    """Numbers for the words and symbols of some texts.

    Args:
        chunks: units of the texts.

    Raises:
        ValueError: if two different words have the same hash (for any two words a chance of about 2**-58).

    Example:
        >>> from rexbert_hf.phrases.words import split_words
        >>> ids = WordIds([split_words(["usb cable", "cable tie"])])
        >>> found = ids.find(split_words(["Tie, cable"]).hashes)
        >>> len(ids), (found >= 0).tolist()
        (3, [True, False, True, False])
    """

    def __init__(self, chunks: Iterable[Words]) -> None:
        parts = [_distinct(*_normal_units(words)) for words in chunks]
        if parts:
            lengths = np.concatenate([np.diff(offsets) for _, _, offsets in parts])
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            hashes = np.concatenate([part[0] for part in parts])
            hashes, codes, offsets = _distinct(hashes, np.concatenate([part[1] for part in parts]), offsets)
        else:
            hashes, codes, offsets = np.empty(0, np.uint64), np.empty(0, np.uint32), np.zeros(1, np.int64)
        self.table = SlotTable(len(hashes))
        slots = self.table.insert(hashes)
        self._rank = np.zeros(len(self.table), dtype=np.int32)
        self._rank[slots] = np.arange(len(slots))
        self._offsets = offsets
        self._codes = codes.astype(np.min_scalar_type(int(codes.max()) if len(codes) else 0))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.table.keys.nbytes + self._rank.nbytes + self._offsets.nbytes + self._codes.nbytes

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Numbers of words by their hashes, int64 `[U]`; -1 for unknown words and for breaks.

        Numbers are below `len(self.table)`, and not dense.

        Args:
            hashes: uint64 `[U]`.
        """
        return self.table.find(hashes)

    def differing(self, words: Words, units: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Those of some units that are other words than their numbers say.

        Args:
            words: the text.
            units: indexes of units whose number is not -1, `[N]`.
            ids: the numbers of all units of the text, `[U]`.
        """
        rank = self._rank[ids[units]]
        first, length = self._offsets[rank], words.length[units]
        same = np.flatnonzero(self._offsets[rank + 1] - first == length)
        places, starts = ranges(words.first[units[same]], length[same])
        shift = np.repeat(first[same] - words.first[units[same]], length[same])
        wrong = np.flatnonzero(words.normal_codes(places) != self._codes[places + shift])
        unequal = np.ones(len(units), dtype=bool)
        unequal[same] = False
        unequal[same[np.searchsorted(starts, wrong, side="right") - 1]] = True
        return units[unequal]


def _normal_units(words: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, characters and offsets of all units but the breaks."""
    units = np.flatnonzero(words.kind != KIND_BREAK)
    codes, offsets = words.normal(units)
    return words.hashes[units], codes, offsets


def _distinct(hashes: np.ndarray, codes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each word once, sorted by hash, after checking that equal hashes are equal words."""
    known, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    unequal = _unequal(codes, offsets, codes, offsets, first[inverse])
    if unequal.any():
        other = int(np.flatnonzero(unequal)[0])
        pair = [decoded(codes[offsets[i] : offsets[i + 1]]) for i in (int(first[inverse[other]]), other)]
        raise ValueError(f"the words {pair[0]!r} and {pair[1]!r} have the same hash: leave one of them out")
    places, kept = ranges(offsets[first], np.diff(offsets)[first])
    return known, codes[places], kept


def _unequal(
    codes: np.ndarray, offsets: np.ndarray, other_codes: np.ndarray, other_offsets: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Which words differ from the words `other` of a second list, bool `[N]`."""
    lengths = np.diff(offsets)
    unequal = lengths != np.diff(other_offsets)[other]
    same = np.flatnonzero(~unequal)
    mine, starts = ranges(offsets[same], lengths[same])
    theirs, _ = ranges(other_offsets[other[same]], lengths[same])
    wrong = np.flatnonzero(codes[mine] != other_codes[theirs])
    unequal[same[np.searchsorted(starts, wrong, side="right") - 1]] = True
    return np.asarray(unequal)
