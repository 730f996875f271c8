"""Find the phrases of a pool in texts: millions of words a second on one core, from a few flat arrays.

A whole chunk of texts is split into words at once, each word becomes a number by its 64-bit hash, and a trie of words
is walked from all places together (`trie.py`). The words of every match are then compared by their characters, so that
a collision of hashes cannot give a wrong match. E-BERT, section "Adaptive Hybrid Masking".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rexbert_hf.phrases.trie import PhraseTrie
from rexbert_hf.phrases.word_ids import WordIds
from rexbert_hf.phrases.words import KIND_BREAK, KIND_WORD, Words, split_chunks

logger = logging.getLogger(__name__)

_VERSION = 1
"""Raise it when the same pool would match anything differently; it is part of the fingerprint."""
Overlaps = Literal["longest", "all"]


class Matches(NamedTuple):
    """Matches as columns, sorted by text, start and end.

    Attributes:
        text: index of the text, int64 `[N]`.
        start: first character in it, int32 `[N]`.
        end: one past the last character, int32 `[N]`.
        phrase: index of the phrase, int64 `[N]`.
    """

    text: np.ndarray
    start: np.ndarray
    end: np.ndarray
    phrase: np.ndarray


class PhraseMatcher:
    """Finds phrases on whole words, whatever the spaces and hyphens between them and, by default, whatever the case.

    Words are those of `phrases/words.py`. Of phrases that are the same words the one with the highest score counts.
    Phrases without a letter or digit are left out, with one warning. It pickles as a few arrays.

    Args:
        phrases: the pool.
        scores: one in [0, 1] for each.
        overlaps: "longest": matches do not overlap, the leftmost wins and among those that begin together the longest;
            "all": every occurrence.
        case_sensitive: whether case matters.

    Attributes:
        scores: float64 `[phrases]`.
        left_out: phrases without any letter or digit.
        fingerprint: changes with phrases, scores and options.

    Raises:
        ValueError: if there is no phrase, or scores do not fit.

    Example:
        >>> matcher = PhraseMatcher(["stainless steel", "steel bottle", "AT&T"], [0.9, 0.7, 0.8])
        >>> matcher.match(["A Stainless-Steel bottle.", "at&t; stainless. steel", ""])
        [[(2, 17, 0.9)], [(0, 4, 0.8)], []]
    """

    def __init__(
        self,
        phrases: Sequence[str],
        scores: np.ndarray | Sequence[float],
        *,
        overlaps: Overlaps = "longest",
        case_sensitive: bool = False,
    ) -> None:
        if overlaps not in ("longest", "all"):
            raise ValueError(f"overlaps must be 'longest' or 'all'; got {overlaps!r}")
        phrases = phrases if isinstance(phrases, list | tuple) else list(phrases)
        self.scores = _checked_scores(phrases, scores)
        self.overlaps, self.case_sensitive = overlaps, case_sensitive
        lengths, units = self._phrase_words(phrases)
        self._trie = PhraseTrie(lengths, units, self.scores, len(self._words.table))
        self.fingerprint = _fingerprint(phrases, self.scores, overlaps, case_sensitive)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that matching needs."""
        return self._words.nbytes + self._trie.nbytes + self.scores.nbytes

    def _phrase_words(self, phrases: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number of words of each phrase, 0 for those left out, and the words of all, one after the other."""
        lengths: list[np.ndarray] = []
        hashes: list[np.ndarray] = []

        def chunks() -> Iterator[Words]:
            # Of each chunk only this is kept, so that a pool takes little more to build than to hold.
            for _, words in split_chunks(phrases, lower=not self.case_sensitive):
                length = np.diff(words.offsets) - 1
                wordless = np.add.reduceat(words.kind == KIND_WORD, words.offsets[:-1]) == 0
                keep = (words.kind != KIND_BREAK) & ~np.repeat(wordless, length + 1)
                lengths.append(np.where(wordless, 0, length))
                hashes.append(words.hashes[keep])
                yield words

        self._words = WordIds(chunks())
        length = np.concatenate(lengths)
        self.left_out = int((length == 0).sum())
        if self.left_out == len(phrases):
            raise ValueError(f"none of the {len(phrases)} phrases has a letter or digit")
        if self.left_out:
            example = phrases[int(np.flatnonzero(length == 0)[0])]
            logger.warning("left out %d phrases without a letter or digit, such as %r", self.left_out, example)
        return length, self._words.find(np.concatenate(hashes))

    def match(self, texts: Sequence[str]) -> list[list[tuple[int, int, float]]]:
        """(first character, one past the last, score) of the phrases in each text, sorted."""
        found = self.match_flat(texts)
        ends = np.cumsum(np.bincount(found.text, minlength=len(texts))).tolist()
        scores = self.scores[found.phrase].tolist()
        spans = list(zip(found.start.tolist(), found.end.tolist(), scores, strict=True))
        return [spans[first:end] for first, end in zip([0, *ends], ends, strict=False)]

    def match_flat(self, texts: Sequence[str]) -> Matches:
        """The same as columns, without Python objects.

        Args:
            texts: any number.

        >>> matcher = PhraseMatcher(["red lamp"], [1.0])
        >>> [column.tolist() for column in matcher.match_flat(["a", "one red lamp"])]
        [[1], [4], [12], [0]]
        """
        parts = list(self._match_chunks(texts))
        if not parts:
            return Matches(*(np.empty(0, dtype=kind) for kind in (np.int64, np.int32, np.int32, np.int64)))
        return Matches(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _match_chunks(self, texts: Sequence[str]) -> Iterator[Matches]:
        for first, words in split_chunks(texts, lower=not self.case_sensitive):
            unit, length, phrase = self._units(words)
            text = np.searchsorted(words.offsets, unit, side="right") - 1 + first
            yield Matches(text, words.start[unit], words.end[unit + length - 1], phrase)

    def _units(self, words: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First unit, number of units and phrase of each match in a chunk."""
        ids = self._words.find(words.hashes)
        while True:
            found = self._longest(ids) if self.overlaps == "longest" else self._all(ids)
            covered = _covered(found[0], found[1], len(ids))
            wrong = self._words.differing(words, covered, ids)
            if not len(wrong):
                return found
            ids[wrong] = -1

    def _all(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        levels = list(self._trie.walk(ids))
        if not levels:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
        unit = np.concatenate([units for _, units, _ in levels])
        length = np.repeat([length for length, _, _ in levels], [len(units) for _, units, _ in levels])
        order = np.lexsort((length, unit))
        phrase = np.concatenate([phrases for _, _, phrases in levels]).astype(np.int64)
        return unit[order], length[order], phrase[order]

    def _longest(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        longest, phrase_of = np.zeros(len(ids), dtype=np.int32), np.zeros(len(ids), dtype=np.int32)
        for length, units, phrases in self._trie.walk(ids):
            longest[units], phrase_of[units] = length, phrases
        is_first = longest > 0
        unit = np.flatnonzero(is_first)
        # From each match the next one that does not overlap it; who is reached from the first one stays.
        following = np.cumsum(is_first)[unit + longest[unit] - 1].tolist()
        chosen = []
        at = 0
        while at < len(following):
            chosen.append(at)
            at = following[at]
        unit = unit[chosen]
        return unit, longest[unit], phrase_of[unit]


def _covered(unit: np.ndarray, length: np.ndarray, count: int) -> np.ndarray:
    """Units inside some matches."""
    change = np.bincount(unit, minlength=count + 1) - np.bincount(unit + length, minlength=count + 1)
    return np.flatnonzero(np.cumsum(change[:-1]))


def _checked_scores(phrases: Sequence[str], scores: np.ndarray | Sequence[float]) -> np.ndarray:
    if not len(phrases):
        raise ValueError("the phrase pool is empty: there is nothing to match")
    scores = np.array(scores, dtype=np.float64)
    if scores.shape != (len(phrases),):
        raise ValueError(f"{len(phrases)} phrases need as many scores; got an array of shape {scores.shape}")
    bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(bad):
        worst = f"phrase {bad[0]} ({phrases[bad[0]]!r}) has {scores[bad[0]]:g}"
        raise ValueError(f"{len(bad)} scores lie outside [0, 1]: {worst}; rescale the pool's scores")
    return scores


def _fingerprint(phrases: Sequence[str], scores: np.ndarray, *options: object) -> str:
    digest = hashlib.sha256(repr((_VERSION, len(phrases), *options)).encode())
    for phrase in phrases:
        encoded = phrase.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    digest.update(scores.tobytes())
    return digest.hexdigest()[:16]
