"""Which text an identifier belongs to, for the identifiers of a whole crawl."""

from __future__ import annotations

import hashlib
from array import array


class TakenIds:
    """Which text an identifier belongs to: an open-addressing table of 64-bit digests, 32 to 64 bytes an entry.

    A place takes 16 bytes, and two to four places stand for an entry; while the table grows, the old one is there too.
    """

    def __init__(self) -> None:
        self._size, self._mask = 0, (1 << 10) - 1
        self._keys, self._texts = _zeros(self._mask + 1), _zeros(self._mask + 1)

    def is_taken(self, identifier: str, text_digest: str) -> bool:
        """Enter an identifier with its text; True if it belongs to another text already."""
        key = int.from_bytes(hashlib.blake2b(identifier.encode("utf-8", "replace"), digest_size=8).digest(), "big") or 1
        text = int(text_digest[:16], 16)
        if 2 * (self._size + 1) > self._mask:
            self._grow()
        place = self._place(key)
        if self._keys[place] == 0:
            self._keys[place], self._texts[place] = key, text
            self._size += 1
            return False
        return self._texts[place] != text

    def _place(self, key: int) -> int:
        place = key & self._mask
        while self._keys[place] not in (0, key):
            place = (place + 1) & self._mask
        return place

    def _grow(self) -> None:
        old = zip(
            self._keys, self._texts, strict=True
        )  # the arrays themselves: numbers of Python take ten times as much
        self._mask = 2 * self._mask + 1
        self._keys, self._texts = _zeros(self._mask + 1), _zeros(self._mask + 1)
        for key, text in old:
            if key:
                place = self._place(key)
                self._keys[place], self._texts[place] = key, text


def _zeros(size: int) -> array[int]:
    return array("Q", [0]) * size
