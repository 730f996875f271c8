"""Where vectors of keys lie, for as many keys as a catalogue has texts: 24 bytes each, and some for the latest ones.

A dict takes 184 bytes a key. So one has the latest keys only, and is sorted into arrays when it is an eighth of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

KEY_BYTES = 16
LEAST_LATEST = 16_384
"""Keys that are kept in a dict at least, before they are sorted in."""

LATEST_SHARE = 8
"""Or so many times fewer than those that are sorted."""

Place = tuple[int, int]
"""Number of a file, row in it."""

_GONE = -1
_ROW_BITS = 32  # a place is one number: a row in the lower bits, above it the file
_ROW = (1 << _ROW_BITS) - 1
_KEY = np.dtype(f"S{KEY_BYTES}")  # of one length all, so that zeros at the end of one count too


class KeyTable:
    """Places of keys; of a key that comes again the first place counts. Threads may share one.

    Example:
        >>> table = KeyTable()
        >>> table.add([bytes(16), bytes(range(16))], file=7)
        >>> table.find([bytes(range(16)), bytes(range(1, 17)), bytes(16)])
        [(7, 1), None, (7, 0)]
    """

    def __init__(self) -> None:
        self._keys = np.zeros(0, _KEY)
        self._places = np.zeros(0, np.int64)
        self._latest: dict[bytes, int] = {}
        self._changing = threading.Lock()  # keys and places are replaced one after the other

    def add(self, keys: Sequence[bytes], file: int) -> None:
        """Take the keys of a file, which lie in its rows.

        Args:
            keys: of 16 bytes.
            file: its number.
        """
        with self._changing:
            latest, first = self._latest, file << _ROW_BITS
            for place, (key, known) in enumerate(zip(keys, self._sorted_places(keys), strict=True), start=first):
                if known == _GONE:
                    latest.setdefault(key, place)
            if len(latest) > max(LEAST_LATEST, len(self._keys) // LATEST_SHARE):
                self._sort_in()

    def find(self, keys: Sequence[bytes]) -> list[Place | None]:
        """The place of each key, None where it is unknown.

        Args:
            keys: of 16 bytes.
        """
        with self._changing:
            latest, known = self._latest, self._sorted_places(keys)
            places = [latest.get(key, _GONE) if at == _GONE else at for key, at in zip(keys, known, strict=True)]
        return [None if place == _GONE else (place >> _ROW_BITS, place & _ROW) for place in places]

    def forget(self, keys: Sequence[bytes]) -> None:
        """Know keys no longer, until they are added again.

        Args:
            keys: of 16 bytes.
        """
        with self._changing:
            at, there = self._sorted_at(_array_of(keys))
            self._places[at[there]] = _GONE
            for key in keys:
                self._latest.pop(key, None)

    def _sorted_places(self, keys: Sequence[bytes]) -> list[int]:
        """The place of each key among the sorted ones, `_GONE` for one that is not there."""
        at, there = self._sorted_at(_array_of(keys))
        places = np.full(len(keys), _GONE, np.int64)
        places[there] = self._places[at[there]]
        found: list[int] = places.tolist()
        return found

    def _sorted_at(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each key is among the sorted ones, or would be; and whether it is there, bool `[N]`."""
        at = np.searchsorted(self._keys, keys)
        there = at < len(self._keys)
        there[there] = self._keys[at[there]] == keys[there]
        return at, there

    def _sort_in(self) -> None:
        keys = _array_of(list(self._latest))
        places = np.fromiter(self._latest.values(), np.int64, len(keys))
        order = np.argsort(keys)
        keys, places = keys[order], places[order]
        at, there = self._sorted_at(keys)
        self._places[at[there]] = places[there]  # forgotten ones, that came again
        self._keys = np.insert(self._keys, at[~there], keys[~there])
        self._places = np.insert(self._places, at[~there], places[~there])
        self._latest = {}


def _array_of(keys: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), _KEY)
