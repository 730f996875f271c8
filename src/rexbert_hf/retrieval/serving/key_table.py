"""Where vectors of keys lie, for as many keys as a catalogue has texts: 24 bytes each, and some for the latest ones.

A dict takes 184 bytes a key. So one has the latest keys only, and is sorted into arrays when it is an eighth of them.
"""

from __future__ import annotations

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
_KEY = np.dtype(f"S{KEY_BYTES}")  # of one length all, so that zeros at the end of one count too


class KeyTable:
    """Places of keys; of a key that comes again the first place counts.

    Example:
        >>> table = KeyTable()
        >>> table.add([bytes(16), bytes(range(16))], file=7)
        >>> table.find([bytes(range(16)), bytes(range(1, 17)), bytes(16)])
        [(7, 1), None, (7, 0)]
    """

    def __init__(self) -> None:
        self._keys = np.zeros(0, _KEY)
        self._places = np.zeros((0, 2), np.int32)
        self._latest: dict[bytes, Place] = {}

    def add(self, keys: Sequence[bytes], file: int) -> None:
        """Take the keys of a file, which lie in its rows.

        Args:
            keys: of 16 bytes.
            file: its number.
        """
        for row, (key, known) in enumerate(zip(keys, self.find(keys), strict=True)):
            if known is None:
                self._latest.setdefault(key, (file, row))
        if len(self._latest) > max(LEAST_LATEST, len(self._keys) // LATEST_SHARE):
            self._sort_in()

    def find(self, keys: Sequence[bytes]) -> list[Place | None]:
        """The place of each key, None where it is unknown.

        Args:
            keys: of 16 bytes.
        """
        at, there = self._sorted_at(_array_of(keys))
        found: list[Place | None] = [self._latest.get(key) for key in keys]
        for i in np.flatnonzero(there).tolist():
            file, row = self._places[at[i]].tolist()
            if file != _GONE:
                found[i] = file, row
        return found

    def forget(self, keys: Sequence[bytes]) -> None:
        """Know keys no longer, until they are added again.

        Args:
            keys: of 16 bytes.
        """
        at, there = self._sorted_at(_array_of(keys))
        self._places[at[there]] = _GONE
        for key in keys:
            self._latest.pop(key, None)

    def _sorted_at(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each key among the sorted ones, or where it would be; and whether it is there, bool `[N]`."""
        at = np.searchsorted(self._keys, keys)
        there = at < len(self._keys)
        there[there] = self._keys[at[there]] == keys[there]
        return at, there

    def _sort_in(self) -> None:
        keys, places = _array_of(list(self._latest)), np.array(list(self._latest.values()), np.int32)
        order = np.argsort(keys)
        keys, places = keys[order], places[order]
        at, there = self._sorted_at(keys)
        self._places[at[there]] = places[there]  # forgotten ones, that came again
        self._keys = np.insert(self._keys, at[~there], keys[~there])
        self._places = np.insert(self._places, at[~there], places[~there], axis=0)
        self._latest = {}


def _array_of(keys: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), _KEY)
