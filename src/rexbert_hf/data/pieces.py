"""Documents cut to a sequence length, and one source's endless shuffled stream of them.

A document that is too long becomes full pieces and a tail, and nothing of it is dropped. Full pieces pack without waste
and train the last positions (equal pieces of a document just over the limit would do neither); only a tiny tail takes
half of the piece before it. A stream repeats its source as often as the budget asks; every pass has a permutation of
its own, so where a token position falls is found by one binary search, without replaying anything.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import offsets_of

_CACHED_EPOCHS = 2
TINY_TAIL = 16
"""A last piece below this fraction of a full one shares the last two pieces' tokens evenly."""
EPOCH_STREAM, BIN_STREAM, CALIBRATION_STREAM = range(3)
"""First word of every random generator's key, so that no two uses share one."""


def _cuts(bodies: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Further pieces (after the first) of bodies longer than `room`: how many a body, and their starts and stops."""
    counts = -(-bodies // room) - 1
    part = ranges(np.ones_like(counts), counts)
    body, is_last = np.repeat(bodies, counts), part == np.repeat(counts, counts)
    tail = body - part * room
    starts = part * room
    tiny = is_last & (tail < room // TINY_TAIL)
    starts[tiny] -= (room - tail[tiny]) // 2
    stops = np.where(is_last, body, np.append(starts[1:], 0))
    return counts, starts, stops


class PieceIndex:
    """Pieces of at most `seq_length` tokens of a source's documents.

    Piece p below the number of documents is the first (mostly the only) piece of document p; the further pieces of long
    documents follow. So a source without long documents costs nothing beyond its lengths.

    Attributes:
        lengths: tokens of each piece with its special tokens, int32 `[P]`.
        num_documents: documents of the source.
        num_tokens: tokens of all pieces: what one pass over the source costs.
        split_documents: documents that were cut.

    Example:
        >>> index = PieceIndex(np.array([5, 12]), seq_length=6, num_special=2)
        >>> index.lengths.tolist(), [part.tolist() for part in index.resolve(np.array([1, 2, 3]))]
        ([5, 6, 6, 4], [[1, 1, 1], [0, 4, 8], [4, 8, 10]])
    """

    def __init__(self, lengths: np.ndarray, seq_length: int, num_special: int = 2, name: str = "source") -> None:
        """Plan the cuts, vectorised over the documents.

        Args:
            lengths: tokens of each document, special tokens included.
            seq_length: longest piece, special tokens included.
            num_special: special tokens that every piece carries.
            name: what to call the source in errors.

        Raises:
            ValueError: if the source is empty, a document is shorter than its special tokens, or `seq_length` leaves
                no room beside them.
        """
        lengths = np.asarray(lengths)
        if len(lengths) == 0:
            raise ValueError(f"source '{name}' has no documents; remove it or check its files")
        if seq_length <= num_special:
            raise ValueError(f"seq_length {seq_length} leaves no room beside {num_special} special tokens")
        if lengths.min() < max(num_special, 1):
            row = int(lengths.argmin())
            raise ValueError(f"source '{name}', row {row}: {lengths[row]} tokens, fewer than its special tokens")
        self.num_documents, self.num_special = len(lengths), num_special
        self._long = np.flatnonzero(lengths > seq_length)
        self.split_documents = len(self._long)
        bodies = lengths[self._long].astype(np.int64) - num_special
        counts, starts, stops = _cuts(bodies, seq_length - num_special)
        self._extra_document = np.repeat(self._long, counts)
        self._extra_start = starts
        self.lengths = np.empty(len(lengths) + len(starts), dtype=np.int32)
        self.lengths[: len(lengths)] = lengths
        self.lengths[self._long] = starts[np.cumsum(counts) - counts] + num_special
        self.lengths[len(lengths) :] = stops - starts + num_special
        self.num_tokens = int(self.lengths.sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def split_among(self, pieces: np.ndarray) -> int:
        """Count the cut documents whose first piece is among `pieces`."""
        return int(np.isin(pieces, self._long).sum()) if len(self._long) else 0

    def resolve(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Document, first and last-plus-one body token of each piece, as `TokenisedDataset.take` wants them."""
        documents = np.array(pieces, dtype=np.int64)
        starts = np.zeros_like(documents)
        further = documents >= self.num_documents
        if further.any():
            extra = documents[further] - self.num_documents
            documents[further] = self._extra_document[extra]
            starts[further] = self._extra_start[extra]
        return documents, starts, starts + self.lengths[pieces] - self.num_special


def _permutation(n: int, key: list[int]) -> np.ndarray:
    """Permute `n` numbers by sorting them under random high bits: numpy's sort is vectorised, its shuffle is not."""
    low_bits = np.uint64(max(n - 1, 1).bit_length())
    keys = np.random.default_rng(key).integers(0, 2**64, n, dtype=np.uint64)
    keys >>= low_bits
    keys <<= low_bits
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << int(low_bits)) - 1)
    return keys.astype(np.int32 if n < 2**31 else np.int64)


class ShuffledStream:
    """The endless stream of a source's pieces, one seeded permutation a pass, addressed by token position."""

    def __init__(self, index: PieceIndex, *key: int) -> None:
        """Keep the key; nothing is shuffled before the first `draw`.

        Args:
            index: the pieces.
            key: seed, phase and source number.
        """
        self.index = index
        self.key = key
        self._epochs: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epochs": OrderedDict()}

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Permutation of the pieces and the token position where each of them starts."""
        if epoch not in self._epochs:
            while len(self._epochs) >= _CACHED_EPOCHS:
                self._epochs.popitem(last=False)
            permutation = _permutation(len(self.index), [EPOCH_STREAM, *self.key, epoch])
            self._epochs[epoch] = (permutation, offsets_of(self.index.lengths[permutation])[:-1])
        self._epochs.move_to_end(epoch)
        return self._epochs[epoch]

    def draw(self, low: int, high: int) -> np.ndarray:
        """Pieces that start at token positions `[low, high)` of the stream, in its order."""
        total = self.index.num_tokens
        parts = [np.zeros(0, dtype=np.int64)]
        for epoch in range(low // total, -(-high // total)):
            permutation, starts = self._epoch(epoch)
            first, last = np.searchsorted(starts, [low - epoch * total, high - epoch * total])
            parts.append(permutation[first:last])
        return np.concatenate(parts)
