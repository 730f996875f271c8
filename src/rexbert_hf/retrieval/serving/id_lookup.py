"""Which row of an index a product id has, without looking through all ids.

A sorted array of hashes covers the rows but for the latest ones, which are looked through: so an upsert need not sort
anew, and the array is made again when these are an eighth of the others. Python's hashes hold its one lock for seconds
where ids are millions: so they are hashed when looks through them have cost as much, and by one thread, while others
look through them. The array is not saved: the hashes are those of one process.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LEAST_TAIL = 4_096
"""Latest rows that are looked through at least, before they are sorted in."""

TAIL_SHARE = 8
"""Or so many times fewer than those that are sorted; and where more ids are asked for, one look through all is less."""

LOOKS = 24
"""Looks through ids that cost about as much as to hash and sort them."""

_HASHED_AT_ONCE = 65_536  # ids are Python's objects meanwhile


class IdLookup:
    """Rows by product id; rows are only ever added.

    Example:
        >>> IdLookup().latest(pa.array(["a", "b", "a"]), ["a", "b", "c"]).tolist()
        [2, 1, -1]
    """

    def __init__(self) -> None:
        # One reference, replaced as a whole: threads look up while another sorts.
        self._sorted = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._looked_through = 0  # ids since then
        self._sorting = threading.Lock()

    def latest(self, ids: pa.Array, asked: Sequence[str]) -> np.ndarray:
        """The last row of each id, int64 `[N]`, -1 where there is none.

        Args:
            ids: of all rows, those of earlier calls first.
            asked: ids.
        """
        wanted = pa.array(asked, pa.string())
        if len(asked) * TAIL_SHARE > len(ids):
            return _latest_of_all(ids, wanted)
        hashes, order = self._sorted_for(ids)
        found = _latest_sorted(ids, wanted, hashes, order)
        latest = ids.slice(len(order))
        self._looked_through += len(latest)
        tail = _latest_of_all(latest, wanted)
        return np.where(tail >= 0, tail + len(order), found)

    def _sorted_for(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        if self._pays(ids) and self._sorting.acquire(blocking=False):
            try:
                if self._pays(ids):  # still: another thread may have done it just now
                    self._sorted, self._looked_through = _sorted_in(ids, *self._sorted), 0
            finally:
                self._sorting.release()
        return self._sorted

    def _pays(self, ids: pa.Array) -> bool:
        known = len(self._sorted[1])
        latest = len(ids) - known
        return latest > max(LEAST_TAIL, known // TAIL_SHARE) and self._looked_through >= LOOKS * latest


def _sorted_in(ids: pa.Array, hashes: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all ids in order, and the row of each."""
    hashes = np.concatenate([hashes, _hashes_of(ids.slice(len(order)))])
    order = np.concatenate([order, np.arange(len(order), len(ids), dtype=np.int32)])
    places = np.argsort(hashes, kind="stable")  # of equal ones the last row comes last
    return hashes[places], order[places]


def _hashes_of(ids: pa.Array) -> np.ndarray:
    parts = (ids.slice(start, _HASHED_AT_ONCE).to_pylist() for start in range(0, len(ids), _HASHED_AT_ONCE))
    return np.fromiter((hash(name) for part in parts for name in part), np.int64, len(ids))


def _latest_sorted(ids: pa.Array, wanted: pa.Array, hashes: np.ndarray, order: np.ndarray) -> np.ndarray:
    rows = np.full(len(wanted), -1, dtype=np.int64)
    if not len(hashes):
        return rows
    own = _hashes_of(wanted)
    places = np.searchsorted(hashes, own, side="right") - 1
    left = np.arange(len(wanted))  # those that may be at their place; more than one turn only where hashes are equal
    while len(left := left[(places[left] >= 0) & (hashes[places[left]] == own[left])]):
        there = order[places[left]].astype(np.int64)
        same = pc.equal(ids.take(pa.array(there)), wanted.take(pa.array(left))).fill_null(False)
        equal = same.to_numpy(zero_copy_only=False)
        rows[left[equal]] = there[equal]
        left = left[~equal]
        places[left] -= 1
    return rows


def _latest_of_all(ids: pa.Array, wanted: pa.Array) -> np.ndarray:
    """The same by a look through all ids, of which each is looked up among the wanted ones."""
    asked = wanted.dictionary_encode()
    places = pc.index_in(ids, value_set=asked.dictionary).fill_null(-1).to_numpy(zero_copy_only=False)
    there = np.flatnonzero(places >= 0)
    rows = np.full(len(asked.dictionary) + 1, -1, dtype=np.int64)
    np.maximum.at(rows, places[there], there)
    found: np.ndarray = rows[asked.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return found
