"""What counting alone achieves on masked tokens: the floor under which a trained model has learnt nothing.

`UnigramBaseline` always guesses the most frequent token. `NeighbourCountBaseline` looks at the two neighbours of a
masked token in tables counted on the training text. Both are evaluated on the very positions that the model is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)
IGNORED = -100


def _flat(batches: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (ids, offsets) of anything that holds documents."""
    if isinstance(batches, np.ndarray) or hasattr(batches, "offsets"):
        batches = [batches]
    for batch in batches:
        if isinstance(batch, tuple):
            ids, offsets = batch
        else:
            ids = batch["input_ids"] if isinstance(batch, dict) else getattr(batch, "input_ids", batch)
            offsets = getattr(batch, "offsets", None)
        ids = np.asarray(ids).ravel()
        yield ids, np.array([0, len(ids)]) if offsets is None else np.asarray(offsets)


def _checked(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    if len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size:
        bad = ids[(ids < 0) | (ids >= vocab_size)][0]
        raise ValueError(f"token id {bad} is outside a vocabulary of {vocab_size}")
    return ids.astype(np.int64, copy=False)


def _is_target(ids: np.ndarray, vocab_size: int, special_ids: Sequence[int]) -> np.ndarray:
    allowed = np.ones(vocab_size, dtype=bool)
    allowed[np.asarray(special_ids, dtype=np.int64)] = False
    return allowed[ids]


def _neighbours(ids: np.ndarray, offsets: np.ndarray, none: int) -> tuple[np.ndarray, np.ndarray]:
    """Left and right neighbour of each token within its document; `none` at the ends."""
    left, right = np.full_like(ids, none), np.full_like(ids, none)
    left[1:], right[:-1] = ids[:-1], ids[1:]
    starts, ends = offsets[:-1], offsets[1:]
    filled = ends > starts
    left[starts[filled]] = none
    right[ends[filled] - 1] = none
    return left, right


class _PairCounts:
    """Counts of int64 keys in sorted arrays; a buffer keeps the number of merges small."""

    def __init__(self, max_entries: int, buffer_size: int = 1 << 23) -> None:
        self.keys: np.ndarray = np.zeros(0, dtype=np.int64)
        self.counts: np.ndarray = np.zeros(0, dtype=np.int32)
        self.max_entries, self.buffer_size = max_entries, buffer_size
        self._buffer: list[np.ndarray] = []
        self._buffered = 0

    def add(self, keys: np.ndarray) -> None:
        self._buffer.append(keys)
        self._buffered += len(keys)
        if self._buffered >= self.buffer_size:
            self.merge()

    def merge(self) -> None:
        if not self._buffered:
            return
        keys, counts = np.unique(np.concatenate(self._buffer), return_counts=True)
        self._buffer, self._buffered = [], 0
        keys = np.concatenate([self.keys, keys])
        counts = np.concatenate([self.counts, counts.astype(np.int32)])
        order = np.argsort(keys, kind="stable")  # two sorted runs: one merging pass
        keys, counts = keys[order], counts[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        self.keys, self.counts = keys[first], np.add.reduceat(counts, first) if len(first) else counts
        if len(self.keys) > self.max_entries:
            kept = self.counts > 1
            logger.warning("%d contexts counted, more than max_entries: those seen once are dropped", len(self.keys))
            self.keys, self.counts = self.keys[kept], self.counts[kept]

    def best(self, base: int) -> _Table:
        """Most frequent last part of each context, keys being `context * base + token`; ties go to the lower id."""
        self.merge()
        contexts = self.keys // base
        first = np.flatnonzero(np.diff(contexts, prepend=-1))
        if not len(first):
            return _Table(contexts, np.zeros(0, dtype=np.int64), np.zeros(0))
        totals, highest = np.add.reduceat(self.counts, first), np.maximum.reduceat(self.counts, first)
        at_top = np.flatnonzero(self.counts == np.repeat(highest, np.diff(first, append=len(contexts))))
        winner = at_top[np.flatnonzero(np.diff(contexts[at_top], prepend=-1))]
        return _Table(contexts[first], self.keys[winner] % base, highest / (totals + 1.0))


@dataclass
class _Table:
    """Best token of each context and how sure it is: its count over the context's, plus one."""

    contexts: np.ndarray
    tokens: np.ndarray
    shares: np.ndarray

    def look_up(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and shares; a share of -1 where the context was never seen."""
        if not len(self.contexts):
            return np.zeros_like(contexts), np.full(len(contexts), -1.0)
        at = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        return self.tokens[at], np.where(self.contexts[at] == contexts, self.shares[at], -1.0)


@dataclass
class UnigramBaseline:
    """Always guess the most frequent token.

    Attributes:
        token: that token.
        share: its share of the counted tokens.

    Example:
        >>> baseline = UnigramBaseline.fit(np.array([4, 4, 7, 1, 1, 1]), vocab_size=8, special_ids=[1])
        >>> baseline.token, round(baseline.share, 2)
        (4, 0.67)
    """

    token: int
    share: float

    @classmethod
    def fit(cls, batches: Any, vocab_size: int, special_ids: Sequence[int] = ()) -> UnigramBaseline:
        """Count tokens.

        Args:
            batches: flat ids, or an iterable of row batches, rows, or (ids, offsets) pairs.
            vocab_size: of the tokenizer.
            special_ids: tokens that are never masked and never guessed.

        Raises:
            ValueError: if an id is outside the vocabulary or no token is left.
        """
        counts = np.zeros(vocab_size, dtype=np.int64)
        for ids, _ in _flat(batches):
            counts += np.bincount(_checked(ids, vocab_size), minlength=vocab_size)
        counts[np.asarray(special_ids, dtype=np.int64)] = 0
        if not counts.sum():
            raise ValueError("there is no token to count: the text is empty or holds special tokens only")
        return cls(int(counts.argmax()), float(counts.max() / counts.sum()))

    def correct(self, labels: np.ndarray) -> np.ndarray:
        """Whether the guess is right, for each labelled position in order, bool `[M]`."""
        labels = np.ravel(labels)
        return labels[labels != IGNORED] == self.token

    def accuracy(self, labels: np.ndarray) -> float:
        """Share of right guesses over the labelled positions."""
        return float(self.correct(labels).mean())


class NeighbourCountBaseline:
    """Guess a masked token from its left and right neighbour.

    Three tables give the most frequent token between two tokens, after a token and before a token. The first decides
    where it knows both neighbours; else the surer of the other two (the best token's count over the context's count
    plus one); else the most frequent token. A neighbour that is itself masked is unknown.

    Attributes:
        unigram: the last resort.
        both: table of (left, right) contexts.
        left: table of left contexts.
        right: table of right contexts.

    Example:
        >>> text = np.array([5, 6, 7, 5, 6, 8, 5, 9, 7])
        >>> baseline = NeighbourCountBaseline.fit(text, vocab_size=10)
        >>> masked, labels = np.array([5, 2, 8]), np.array([-100, 6, -100])
        >>> baseline.predict(masked, labels, mask_id=2).tolist(), baseline.accuracy(masked, labels, mask_id=2)
        ([6], 1.0)
    """

    def __init__(self, unigram: UnigramBaseline, both: _Table, left: _Table, right: _Table, vocab_size: int) -> None:
        self.unigram, self.both, self.left, self.right = unigram, both, left, right
        self.vocab_size = vocab_size

    @classmethod
    def fit(
        cls, batches: Any, vocab_size: int, special_ids: Sequence[int] = (), max_entries: int = 60_000_000
    ) -> NeighbourCountBaseline:
        """Count neighbours.

        Args:
            batches: flat ids, or an iterable of row batches, rows, or (ids, offsets) pairs; documents stay apart.
            vocab_size: of the tokenizer.
            special_ids: tokens that are never guessed (they still count as neighbours).
            max_entries: when a table grows beyond this, what was seen once is dropped, with a warning. An entry takes
                12 bytes, and about three times that while tables merge.

        Raises:
            ValueError: if an id is outside the vocabulary, the vocabulary is too large, or no token is left.
        """
        base = vocab_size + 1  # the last id stands for "no neighbour": the end of a document
        if base**3 >= 2**63:
            raise ValueError(f"a vocabulary of {vocab_size} tokens is too large for the keys of neighbour counts")
        counts = np.zeros(vocab_size, dtype=np.int64)
        both, left, right = (_PairCounts(max_entries) for _ in range(3))
        for raw, offsets in _flat(batches):
            ids = _checked(raw, vocab_size)
            before, after = _neighbours(ids, offsets, vocab_size)
            kept = _is_target(ids, vocab_size, special_ids)
            token, before, after = ids[kept], before[kept], after[kept]
            counts += np.bincount(token, minlength=vocab_size)
            both.add((before * base + after) * base + token)
            left.add(before * base + token)
            right.add(after * base + token)
        if not counts.sum():
            raise ValueError("there is no token to count: the text is empty or holds special tokens only")
        unigram = UnigramBaseline(int(counts.argmax()), float(counts.max() / counts.sum()))
        return cls(unigram, both.best(base), left.best(base), right.best(base), vocab_size)

    def predict(
        self,
        input_ids: np.ndarray,
        labels: np.ndarray,
        mask_id: int,
        offsets: np.ndarray | None = None,
        copy_visible: bool = True,
    ) -> np.ndarray:
        """Guess the token of each labelled position, in order, int64 `[M]`.

        Args:
            input_ids: masked input, flat `[T]` or `[1, T]`.
            labels: of the same shape, -100 where nothing is predicted.
            mask_id: the mask token.
            offsets: document borders, `[D + 1]`; None for one document.
            copy_visible: at labelled positions that do not show the mask (the 10 % kept and the 10 % random ones of
                80/10/10 masking) guess the token that stands there, as any trained model learns to do.
        """
        ids, wanted = np.ravel(input_ids).astype(np.int64), np.ravel(labels) != IGNORED
        borders = np.array([0, len(ids)]) if offsets is None else np.asarray(offsets)
        before, after = (side[wanted] for side in _neighbours(ids, borders, self.vocab_size))
        base, known_left, known_right = self.vocab_size + 1, before != mask_id, after != mask_id
        after_left, share_left = self.left.look_up(before)
        before_right, share_right = self.right.look_up(after)
        share_left, share_right = np.where(known_left, share_left, -1.0), np.where(known_right, share_right, -1.0)
        guess = np.where(share_left >= share_right, after_left, before_right)
        guess = np.where(np.maximum(share_left, share_right) >= 0, guess, self.unigram.token)
        between, share_both = self.both.look_up(before * base + after)
        guess = np.where(known_left & known_right & (share_both >= 0), between, guess)
        if copy_visible:
            shown = ids[wanted]
            guess = np.where(shown == mask_id, guess, shown)
        return guess

    def correct(self, input_ids: np.ndarray, labels: np.ndarray, mask_id: int, **options: Any) -> np.ndarray:
        """Whether the guess is right, for each labelled position in order, bool `[M]`; options as `predict`."""
        wanted = np.ravel(labels)
        return self.predict(input_ids, labels, mask_id, **options) == wanted[wanted != IGNORED]

    def accuracy(
        self, input_ids: np.ndarray, labels: np.ndarray, mask_id: int, offsets: np.ndarray | None = None
    ) -> float:
        """Share of right guesses over the labelled positions."""
        return float(self.correct(input_ids, labels, mask_id, offsets=offsets).mean())
