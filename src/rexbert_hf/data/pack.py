"""Best-fit decreasing packing of documents into token-budget bins.

Items of one length fill the tightest bin until it can take no more of them, so the loop runs over (length, bin) events
instead of documents. `spread` deals the longest documents out first, each to the emptiest bin: pure best-fit makes one
batch of long reviews and another of titles, and a step should see the mix.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np


@dataclass(frozen=True)
class PackingReport:
    """How well documents filled their bins; reports add up with `+`.

    Attributes:
        slots: token places in all bins.
        tokens: real tokens placed, special tokens included.
        dropped_tokens: tokens of documents (or pieces) that found no bin.
        documents: documents or pieces placed.
        split_documents: documents longer than the sequence length, which were cut into pieces.
        repeated_documents: copies that keep a micro-batch from being empty.

    Example:
        >>> report = PackingReport(slots=100, tokens=98, dropped_tokens=2, documents=7)
        >>> report.fill, report.dropped_share
        (0.98, 0.02)
    """

    slots: int = 0
    tokens: int = 0
    dropped_tokens: int = 0
    documents: int = 0
    split_documents: int = 0
    repeated_documents: int = 0

    @property
    def fill(self) -> float:
        """Share of the slots that hold a real token."""
        return self.tokens / self.slots if self.slots else 0.0

    @property
    def dropped_share(self) -> float:
        """Share of the tokens that were dropped."""
        due = self.tokens + self.dropped_tokens
        return self.dropped_tokens / due if due else 0.0

    def __add__(self, other: PackingReport) -> PackingReport:
        return PackingReport(
            self.slots + other.slots,
            self.tokens + other.tokens,
            self.dropped_tokens + other.dropped_tokens,
            self.documents + other.documents,
            self.split_documents + other.split_documents,
            self.repeated_documents + other.repeated_documents,
        )

    def __str__(self) -> str:
        return (
            f"{self.fill:.2%} of {self.slots} slots filled by {self.documents} documents, "
            f"{self.dropped_share:.3%} of tokens dropped, {self.split_documents} documents split"
        )


def pack(lengths: np.ndarray, capacity: int | np.ndarray, num_bins: int, spread: float = 0.0) -> np.ndarray:
    """Assign each item to one of `num_bins` bins, or to none.

    Best-fit decreasing: the longest item first, into the bin with the least room that still holds it. Deterministic;
    ties go to the item, and the bin, of lower index.

    Args:
        lengths: tokens of each item, int `[N]`.
        capacity: tokens a bin holds; one number, or one for each bin.
        num_bins: the number of bins.
        spread: share of the tokens, longest items first, that is dealt out to the emptiest bins instead, so that bins
            resemble each other.

    Returns:
        The bin of each item, int32 `[N]`; -1 for an item that found no room.

    Raises:
        ValueError: if there is no bin, or an item is empty or longer than every bin.

    Example:
        >>> pack(np.array([5, 3, 8, 2]), capacity=10, num_bins=2).tolist()
        [1, 1, 0, 0]
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    room = np.broadcast_to(np.asarray(capacity, dtype=np.int64), (num_bins,)) if num_bins > 0 else np.zeros(0, int)
    if not num_bins > 0:
        raise ValueError(f"packing needs at least one bin; got {num_bins}")
    if len(lengths) == 0:
        return np.zeros(0, dtype=np.int32)
    if lengths.min() < 1 or lengths.max() > room.max():
        wrong = int(np.flatnonzero((lengths < 1) | (lengths > room.max()))[0])
        raise ValueError(f"item {wrong} has {lengths[wrong]} tokens; a bin of {room.max()} holds 1 to {room.max()}")
    order = np.argsort(-lengths, kind="stable")
    sorted_lengths = lengths[order]
    dealt = 0
    if spread > 0:
        dealt = int(np.searchsorted(np.cumsum(sorted_lengths), spread * min(lengths.sum(), room.sum()), side="right"))
    bins, room = _deal(sorted_lengths[:dealt], room)
    rest = _best_fit(sorted_lengths[len(bins) :], room)
    out = np.empty(len(lengths), dtype=np.int32)
    out[order] = np.concatenate([bins, rest])
    return out


def _deal(lengths: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each item to the emptiest bin until one does not fit; the bins of those dealt, and the room left."""
    count = len(room)
    # One integer holds room and bin: -(room * count + (count - 1 - bin)), so the smallest is the emptiest, lowest bin.
    heap = (-(room * count + np.arange(count)[::-1])).tolist()
    heapify(heap)
    bins: list[int] = []
    for scaled in (lengths * count).tolist():
        emptiest = heap[0]
        if -emptiest < scaled:
            break
        bins.append(emptiest)
        heapreplace(heap, emptiest + scaled)
    last = count - 1
    left = np.zeros(count, dtype=np.int64)
    keys = -np.array(heap, dtype=np.int64)
    left[last - keys % count] = keys // count
    return (last - (-np.array(bins, dtype=np.int64)) % count).astype(np.int32), left


def _best_fit(lengths: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Best fit of items sorted longest first."""
    if len(lengths) == 0:
        return np.zeros(0, dtype=np.int32)
    count = len(room)
    open_bins = sorted((room * count + np.arange(count)).tolist())
    starts = np.concatenate([[0], np.flatnonzero(np.diff(lengths)) + 1])
    runs = np.diff(np.concatenate([starts, [len(lengths)]]))
    bins: list[int] = []
    counts: list[int] = []
    for length, left in zip(lengths[starts].tolist(), runs.tolist(), strict=True):
        scaled, at = length * count, -1
        while left:
            at = bisect_left(open_bins, scaled)
            if at == len(open_bins):
                break
            key = open_bins.pop(at)
            taken = min(left, key // scaled)
            bins.append(key % count)
            counts.append(taken)
            left -= taken
            insort(open_bins, key - taken * scaled)
        if left:
            bins.append(-1)
            counts.append(left)
    return np.repeat(np.array(bins, dtype=np.int32), counts)
