"""Spans of a batch made fit for masking: whole words, one row, no overlap.

Tokenised rows carry all spans that the guides found, which may overlap, cut words or cover special tokens. Masking
needs disjoint units, so overlaps are resolved here, vectorised over the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import FIELD, SPAN_KINDS, RowBatch
from rexbert_hf.masking.units import row_starts

LEFT_OUT = (
    "%d spans of a batch cover a special token or a row's border and are left out (said once; a span must lie within "
    "the text of one row)"
)
"""What a collator says about spans that no word can hold."""

_FOUND = np.arange(len(SPAN_KINDS)) != FIELD
"""Kinds that guides find; a field of a pair is no unit of masking."""


class Spans(NamedTuple):
    """Disjoint spans in order: tokens `start` to `end` (exclusive, counted in the batch), score and kind index."""

    start: np.ndarray
    end: np.ndarray
    score: np.ndarray
    kind: np.ndarray

    def subset(self, index: np.ndarray) -> Spans:
        """The spans with these indexes, in their order."""
        return Spans(self.start.take(index), self.end.take(index), self.score.take(index), self.kind.take(index))


def whole_spans(batch: RowBatch, starts: np.ndarray, eligible: np.ndarray) -> tuple[Spans, int]:
    """Disjoint spans of whole words, and how many spans were left out because no word can hold them.

    Args:
        batch: rows with spans.
        starts: bool `[T]`, the first token of each word.
        eligible: bool `[T]`, False for special tokens.

    Raises:
        ValueError: if a span is empty, lies outside the batch or has a score outside [0, 1].

    Example:
        >>> row = {"input_ids": [5, 6, 7, 8], "word_ids": [0, 1, 1, 2], "span_start": [0, 2], "span_end": [2, 4],
        ...        "span_score": [0.5, 0.9], "span_kind": [0, 2]}
        >>> spans, left_out = whole_spans(RowBatch.from_rows([row]), np.array([1, 1, 0, 1], bool), np.ones(4, bool))
        >>> spans.start.tolist(), spans.end.tolist(), left_out
        ([1], [4], 0)
    """
    spans, left_out = spans_of_words(batch, starts, eligible, _FOUND)
    keep = np.flatnonzero(disjoint_spans(spans.start, spans.end, spans.score))
    return (spans if len(keep) == len(spans.start) else spans.subset(keep)), left_out


def spans_of_words(
    batch: RowBatch, starts: np.ndarray, eligible: np.ndarray, kinds: np.ndarray | None = None
) -> tuple[Spans, int]:
    """Spans of whole words, sorted by start, overlaps and all; and how many were left out as above.

    Args:
        batch: rows with spans.
        starts: bool `[T]`, the first token of each word.
        eligible: bool `[T]`, False for special tokens.
        kinds: bool, by kind index; spans of other kinds are not looked at. None for all.

    Raises:
        ValueError: as `whole_spans`.
    """
    spans = _read(batch)
    if kinds is not None and len(spans.start):
        spans = spans.subset(np.flatnonzero(kinds.take(spans.kind)))
    if not len(spans.start):
        return spans, 0
    allowed = np.flatnonzero(_within_text(spans, batch, eligible))
    left_out = len(spans.start) - len(allowed)
    if left_out:
        spans = spans.subset(allowed)
    spans = _to_word_borders(spans, starts)
    if (spans.start[1:] < spans.start[:-1]).any():
        spans = spans.subset(np.argsort(spans.start, kind="stable"))
    return spans, left_out


def _read(batch: RowBatch) -> Spans:
    """The spans of a batch as they stand, checked."""
    start, end, score, kind = batch.span_start, batch.span_end, batch.span_score, batch.span_kind
    if start is None or end is None or score is None or kind is None:
        nothing = np.zeros(0, dtype=np.int64)
        return Spans(nothing, nothing, np.zeros(0, dtype=np.float32), nothing)
    sound = (start < end) & (start >= 0) & (end <= len(batch.input_ids)) & (score >= 0) & (score <= 1)
    if not sound.all():
        i = int(np.flatnonzero(~sound)[0])
        row = max(int(np.searchsorted(batch.offsets, start[i], side="right")) - 1, 0)
        first = int(batch.offsets[row])
        raise ValueError(
            f"row {row} of the batch: span [{start[i] - first}, {end[i] - first}) with score {score[i]} is not "
            "a range of at least one token of the batch with a score in [0, 1]"
        )
    return Spans(start.astype(np.int64), end.astype(np.int64), score, kind)


def _within_text(spans: Spans, batch: RowBatch, eligible: np.ndarray) -> np.ndarray:
    """Spans within one row and without special tokens, bool `[N]`."""
    barriers = row_starts(batch)
    barriers |= ~eligible
    places = np.flatnonzero(barriers)  # few, and spans ascend: cheaper than a running count over all tokens
    passed = np.searchsorted(places, spans.start, side="right")
    return (passed == np.searchsorted(places, spans.end)) & eligible.take(spans.start)


def _to_word_borders(spans: Spans, starts: np.ndarray) -> Spans:
    """Grow spans that begin or end inside a word to the word's border."""
    begins_whole = starts.take(spans.start)
    # A span at the end of the batch may look cut here; its end is then found to be a border below.
    ends_whole = starts.take(spans.end, mode="clip")
    if begins_whole.all() and ends_whole.all():
        return spans
    start, end = spans.start.copy(), spans.end.copy()
    begins_inside, ends_inside = np.flatnonzero(~begins_whole), np.flatnonzero(~ends_whole)
    borders = np.append(np.flatnonzero(starts), len(starts))
    start[begins_inside] = borders[np.searchsorted(borders, start[begins_inside]) - 1]
    end[ends_inside] = borders[np.searchsorted(borders, end[ends_inside])]
    return Spans(start, end, spans.score, spans.kind)


def disjoint_spans(start: np.ndarray, end: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Choose among overlapping spans: the higher score first, then the longer, then the earlier.

    A span is kept when no span kept before it in that order overlaps it. Runs in rounds: each keeps all spans that
    win against every span still overlapping them, and drops what those overlap; few rounds do unless scores rise
    along a chain of overlaps.

    Args:
        start: int `[N]`, ascending.
        end: int `[N]`, exclusive.
        score: float `[N]`.

    Returns:
        bool `[N]`, True for the spans kept.

    Example:
        >>> disjoint_spans(np.array([0, 1, 4]), np.array([2, 5, 6]), np.array([0.5, 0.9, 0.8])).tolist()
        [False, True, False]
    """
    keep = np.ones(len(start), dtype=bool)
    overlaps = np.zeros(len(start) + 1, dtype=bool)
    overlaps[1:-1] = start[1:] < np.maximum.accumulate(end)[:-1]
    # A span that overlaps any later one overlaps the next one, as starts ascend.
    involved = np.flatnonzero(overlaps[:-1] | overlaps[1:])
    if not len(involved):
        return keep
    winner, loser = _rivals(start[involved], end[involved], score[involved])
    lost = np.zeros(len(involved), dtype=bool)
    while len(winner):
        contested = np.zeros(len(involved), dtype=bool)
        contested[loser] = True
        lost[loser[~contested[winner]]] = True
        open_ = ~(lost[winner] | lost[loser])
        winner, loser = winner[open_], loser[open_]
    keep[involved] = ~lost
    return keep


def _rivals(start: np.ndarray, end: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All overlapping pairs as (index of the better span, index of the worse), for ascending starts."""
    own = np.arange(len(start))
    counts = np.searchsorted(start, end) - own - 1
    early = np.repeat(own, counts)
    late = ranges(own + 1, counts)
    length = end - start
    tie = score[early] == score[late]
    early_wins = (score[early] > score[late]) | (tie & (length[early] >= length[late]))
    return np.where(early_wins, early, late), np.where(early_wins, late, early)
