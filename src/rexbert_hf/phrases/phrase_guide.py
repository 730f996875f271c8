"""Guides of E-BERT: phrases of a pool, with noun phrases where there are few of them, or noun phrases alone.

Matching runs once, when text is tokenised; collators see spans. The paper extends the phrases of a text by its noun
phrases so that there are enough to choose from; here that is done for texts whose phrases are few or cover little.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, Protocol

import numpy as np

from rexbert_hf.phrases.guides import Span, fingerprint_of
from rexbert_hf.phrases.matcher import Matches, PhraseMatcher
from rexbert_hf.phrases.noun_phrases import Method, NounPhraseFinder

logger = logging.getLogger(__name__)

_VERSION = 1


class Pool(Protocol):
    """Scored phrases, such as a `PhrasePool`."""

    @property
    def phrases(self) -> Sequence[str]:
        """The phrases."""
        ...

    @property
    def scores(self) -> np.ndarray:
        """A score in [0, 1] for each."""
        ...


class PhraseGuide:
    """Mark the phrases of a pool (kind `phrase`) and, in texts with few of them, noun phrases (kind `noun_phrase`).

    Supplements have the lowest score of the pool and never overlap a phrase.

    Args:
        pool: a pool of phrases, or a matcher (which decides about overlaps and case).
        noun_phrases: how they are found (see `NounPhraseFinder`), or "none".
        min_phrases: a text with fewer phrases is supplemented.
        min_share: so is one of whose characters phrases cover a smaller share; twice what E-BERT masks, so that there
            is something to choose.

    Attributes:
        matcher: of the pool.
        finder: of noun phrases; None for "none".
        counts: what this object has seen so far, in this process: `texts`, `phrases`, `noun_phrases`,
            `without_phrases`, `supplemented`, and `unmarked` (neither). Not part of the fingerprint.

    Raises:
        ValueError: if the pool is empty or its scores are not in [0, 1], or an option is out of range.

    Example:
        >>> guide = PhraseGuide(PhraseMatcher(["stainless steel"], [0.8]), noun_phrases="light")
        >>> guide(["the stainless steel bottle", "Buy it"])
        [[(4, 19, 0.8, 'phrase')], []]
        >>> dict(guide.counts)
        {'texts': 2, 'phrases': 1, 'noun_phrases': 0, 'without_phrases': 1, 'supplemented': 0, 'unmarked': 1}
    """

    def __init__(
        self,
        pool: Pool | PhraseMatcher,
        *,
        noun_phrases: Method | Literal["none"] = "auto",
        min_phrases: int = 2,
        min_share: float = 0.3,
    ) -> None:
        if min_phrases < 0 or not 0.0 <= min_share <= 1.0:
            raise ValueError(
                f"min_phrases must be at least 0 and min_share in [0, 1]; got {min_phrases} and {min_share}"
            )
        self.matcher = pool if isinstance(pool, PhraseMatcher) else PhraseMatcher(pool.phrases, pool.scores)
        self.finder = None if noun_phrases == "none" else NounPhraseFinder(noun_phrases)
        self.min_phrases, self.min_share = min_phrases, min_share
        self.lowest_score = float(self.matcher.scores.min())
        self.counts: Counter[str] = Counter()
        supplements = ("none",) if self.finder is None else (self.finder.fingerprint, min_phrases, min_share)
        self.fingerprint = fingerprint_of("phrases", _VERSION, self.matcher.fingerprint, *supplements)

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """Mark each text; spans sorted by start, then end."""
        found = self.matcher.match_flat(texts)
        marked = _spans(found, self.matcher.scores, len(texts))
        few = self._few(found, texts)
        supplements = 0
        filled = 0
        if self.finder is not None and few:
            for text, phrases in zip(few, self.finder([texts[text] for text in few]), strict=True):
                clear = _clear(phrases, marked[text])
                if clear:
                    marked[text] += [(start, end, self.lowest_score, "noun_phrase") for start, end in clear]
                    marked[text].sort(key=lambda span: span[:2])
                    supplements += len(clear)
                    filled += 1
        self.counts.update(
            texts=len(texts),
            phrases=len(found.text),
            noun_phrases=supplements,
            without_phrases=len(texts) - len(np.unique(found.text)),
            supplemented=filled,
            unmarked=sum(not spans for spans in marked),
        )
        return marked

    def _few(self, found: Matches, texts: Sequence[str]) -> list[int]:
        """Texts with few phrases."""
        count = np.bincount(found.text, minlength=len(texts))
        covered = np.bincount(found.text, weights=found.end - found.start, minlength=len(texts))
        sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        return np.flatnonzero((count < self.min_phrases) | (covered < self.min_share * sizes)).tolist()


class NounPhraseGuide:
    """Mark all noun phrases, whatever the domain: for the BERT-NP row of E-BERT's table.

    Args:
        method: how they are found (see `NounPhraseFinder`).
        score: of each.

    Raises:
        ValueError: if the score is outside [0, 1].

    Example:
        >>> NounPhraseGuide("light")(["The wireless mouse works"])
        [[(4, 18, 1.0, 'noun_phrase')]]
    """

    def __init__(self, method: Method = "auto", *, score: float = 1.0) -> None:
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"the score of noun phrases must lie in [0, 1]; got {score}")
        self.finder, self.score = NounPhraseFinder(method), float(score)
        self.fingerprint = fingerprint_of("noun phrases alone", _VERSION, self.finder.fingerprint, self.score)

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """Mark each text; spans are sorted and do not overlap."""
        return [[(start, end, self.score, "noun_phrase") for start, end in found] for found in self.finder(texts)]


def _spans(found: Matches, scores: np.ndarray, count: int) -> list[list[Span]]:
    """Matches as a list of spans for each text."""
    columns = (found.start.tolist(), found.end.tolist(), scores[found.phrase].tolist())
    spans = [(start, end, score, "phrase") for start, end, score in zip(*columns, strict=True)]
    ends = np.cumsum(np.bincount(found.text, minlength=count)).tolist()
    return [spans[first:end] for first, end in zip([0, *ends], ends, strict=False)]


def _clear(phrases: list[tuple[int, int]], taken: list[Span]) -> list[tuple[int, int]]:
    """Those that overlap no span of a list sorted by start."""
    starts = [span[0] for span in taken]
    reach = [0, *accumulate((span[1] for span in taken), max)]
    return [(start, end) for start, end in phrases if reach[bisect_left(starts, end)] <= start]
