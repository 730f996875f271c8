"""A set of 64-bit keys in one flat array: vectorised open addressing, thousands of look-ups at a time.

A key's slot serves as its name, so that a table needs no second array of values. Keys are compared whole: the table
never answers for a key that it does not hold.
"""

from __future__ import annotations

import numpy as np

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_MULTIPLIER = np.uint64(0xD1342543DE82EF95)


class SlotTable:
    """Distinct keys and their slots; a slot is looked up by key and never changes.

    Args:
        capacity: most keys that will be inserted; the table is at most half full, 8 to 32 bytes a key.

    Example:
        >>> table = SlotTable(3)
        >>> slots = table.insert(np.array([7, 1 << 60, 9], dtype=np.uint64))
        >>> bool((table.find(np.array([9, 8, 7], dtype=np.uint64)) == [slots[2], -1, slots[0]]).all())
        True
    """

    def __init__(self, capacity: int) -> None:
        bits = max(2 * capacity - 1, 3).bit_length()
        self.keys = np.full(1 << bits, EMPTY, dtype=np.uint64)
        self._shift = np.uint64(64 - bits)
        self._last = (1 << bits) - 1

    def __len__(self) -> int:
        return len(self.keys)

    def _home(self, keys: np.ndarray) -> np.ndarray:
        return ((keys * _MULTIPLIER) >> self._shift).view(np.int64)

    def insert(self, keys: np.ndarray) -> np.ndarray:
        """Add keys and return their slots.

        Args:
            keys: uint64 `[N]`, distinct, none of them in the table or `EMPTY`.
        """
        slots = self._home(keys)
        pending = np.arange(len(keys))
        while len(pending):
            at = slots[pending]
            free = pending[self.keys[at] == EMPTY]
            # Of several keys for one slot the last one written stays, and finds itself there.
            self.keys[slots[free]] = keys[free]
            pending = pending[self.keys[at] != keys[pending]]
            slots[pending] = (slots[pending] + 1) & self._last
        return slots

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Slots of keys, int64 `[N]`; -1 for those that are not in the table.

        Args:
            keys: uint64 `[N]`, not `EMPTY`.
        """
        found = self._home(keys)
        held = self.keys[found]
        pending = np.flatnonzero(held != keys)
        held, keys, slots = held[pending], keys[pending], found[pending]
        found[pending] = -1
        while len(pending):
            going = np.flatnonzero(held != EMPTY)
            pending, keys, slots = pending[going], keys[going], (slots[going] + 1) & self._last
            held = self.keys[slots]
            hit = held == keys
            found[pending[hit]] = slots[hit]
            held[hit] = EMPTY
        return found
