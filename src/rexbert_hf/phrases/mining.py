"""Mine phrases from text that need not fit in memory: count, describe, score, segment, score again.

AutoPhrase in four parts of this room: `candidates` (frequent n-grams), `features`, `quality` (distant supervision) and
`segmentation` (rectified counts). Text is read once; everything after works on word ids on disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rexbert_hf.phrases.candidates import Candidates, count_candidates, places
from rexbert_hf.phrases.features import Contexts, count_contexts, make_features
from rexbert_hf.phrases.quality import known_phrases, score_candidates
from rexbert_hf.phrases.segmentation import rectified_counts
from rexbert_hf.phrases.spool import TEXT_END, Spool, Texts

logger = logging.getLogger(__name__)

FEW_KNOWN = 20
"""Fewer known phrases among the candidates than this are warned of: all trees learn from the same few."""


@dataclass(frozen=True)
class MiningOptions:
    """How to mine.

    Attributes:
        max_words: longest phrase; phrases have two words or more.
        min_count: an n-gram that occurs less often is no candidate.
        min_score: candidates below are left out.
        distinct_words: a run of at least so many words without punctuation counts once, however often it is repeated,
            because shops repeat whole sentences; 0 counts all of them.
        rounds: scorings; from the second on with counts rectified by segmentation.
        trees: of each scoring.
        sample: positives and negatives that one tree sees.
        seed: of the trees.
        threads: that read, count and score.
        work_dir: where the temporary files go, about 2.5 times the size of the text; made when missing. The next
            mining there removes what a killed one left.
    """

    max_words: int = 6
    min_count: int = 10
    min_score: float = 0.5
    distinct_words: int = 8
    rounds: int = 2
    trees: int = 400
    sample: int = 100
    seed: int = 0
    threads: int = 1
    work_dir: str | Path | None = None

    def __post_init__(self) -> None:
        lowest = {
            "max_words": 2,
            "min_count": 2,
            "distinct_words": 0,
            "rounds": 1,
            "trees": 1,
            "sample": 1,
            "threads": 1,
        }
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not 0.0 <= self.min_score <= 1.0:
            raise ValueError(f"min_score must be in [0, 1]; got {self.min_score}")


@dataclass
class MinedPhrases:
    """What was found; arrays are `[N]`, in no particular order.

    Attributes:
        phrases: normalised phrases.
        scores: quality in [0, 1].
        counts: occurrences in the text.
        categories: the category that each is most typical of, None when texts came without.
        facts: texts, words, candidates, known phrases, and seconds by stage.
    """

    phrases: list[str]
    scores: np.ndarray
    counts: np.ndarray
    categories: list[str | None] | None
    facts: dict[str, float | dict[str, float]] = field(default_factory=dict)


def mine_phrases(texts: Texts, positives: Iterable[str], options: MiningOptions | None = None) -> MinedPhrases:
    """Mine scored phrases.

    Args:
        texts: see `spool.Texts`.
        positives: names that hold known phrases, as `known_phrases` takes them.
        options: how.

    Raises:
        ValueError: if there is no text, no candidate, no known phrase among the candidates, or none reaches the score.
        OSError: if `work_dir` cannot be written.
    """
    options = options or MiningOptions()
    clock = _Clock()
    known = known_phrases(positives)
    with Spool(options.work_dir, options.threads, options.distinct_words) as spool:
        spool.write(texts)
        clock.stop("read")
        if not spool.num_words:
            raise ValueError(f"there is nothing to mine: {spool.num_texts} texts without a word")
        candidates = count_candidates(spool, options.max_words, options.min_count)
        clock.stop("count")
        scored = _Scoring(spool, candidates, known, options, clock).run()
        mined = _chosen(spool, candidates, scored, options)
        clock.stop("categories")
    mined.facts |= {"texts": spool.num_texts, "words": spool.num_words, "characters": spool.num_characters}
    mined.facts |= {"repeated_words": spool.num_repeated}
    mined.facts |= {"known": len(known), "phrases": len(mined.phrases), "seconds": clock.seconds}
    logger.info("mined %d phrases: %s", len(mined.phrases), mined.facts)
    return mined


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self._last = now


@dataclass
class _Scored:
    """Scores by length (`scores[n - 1]`, None for words), and which candidates were known."""

    scores: list[np.ndarray]
    known: list[np.ndarray]


class _Scoring:
    """The rounds of scoring and segmentation."""

    def __init__(
        self, spool: Spool, candidates: Candidates, known: set[str], options: MiningOptions, clock: _Clock
    ) -> None:
        self.spool, self.candidates, self.options, self.clock = spool, candidates, options, clock
        self.sizes = range(2, options.max_words + 1)
        self.lengths = [len(candidates.levels[size - 1]) for size in self.sizes]
        if not sum(self.lengths):
            raise ValueError(
                f"no two words stand together {options.min_count} times in {spool.num_texts} texts: lower min_count"
            )
        self.known = [
            np.fromiter((text in known for text in candidates.texts(size)), dtype=bool, count=length)
            for size, length in zip(self.sizes, self.lengths, strict=True)
        ]
        count = sum(int(part.sum()) for part in self.known)
        if not count:
            raise ValueError(
                f"none of the {len(known)} known phrases is among the {sum(self.lengths)} candidates: "
                "give positives of this kind of text, or lower min_count"
            )
        if count < FEW_KNOWN:
            logger.warning(
                "only %d of %d candidates are known phrases, too few to learn from what a phrase is: give positives of"
                " this kind of text, in its own forms (as 'table lamp' beside 'table lamps'), or lower min_count",
                count,
                sum(self.lengths),
            )

    def run(self) -> _Scored:
        contexts = count_contexts(self.spool, self.candidates, self.options.max_words)
        self.clock.stop("contexts")
        counts = [level.counts for level in self.candidates.levels]
        scores = self._score(contexts, counts)
        for number in range(1, self.options.rounds):
            rectified = rectified_counts(self.spool, self.candidates, scores, self.options.max_words)
            self.clock.stop("segment")
            scores = self._score(contexts, [*rectified, counts[-1]], number)
        return _Scored(scores, self.known)

    def _score(self, contexts: list[Contexts], counts: list[np.ndarray], number: int = 0) -> list[np.ndarray]:
        matrix: np.ndarray | None = None
        first = 0
        for size, length in zip(self.sizes, self.lengths, strict=True):
            columns = make_features(self.candidates, contexts, size, counts)
            if matrix is None:
                matrix = np.empty((sum(self.lengths), len(columns)), dtype=np.float32)
            for column, values in enumerate(columns.values()):
                matrix[first : first + length, column] = values
            first += length
        assert matrix is not None
        scores = score_candidates(
            matrix,
            np.concatenate(self.known),
            self.options.trees,
            self.options.sample,
            seed=self.options.seed + number,
            mapper=self.spool.map,
        )
        self.clock.stop("score")
        return [np.zeros(0), *np.split(scores, np.cumsum(self.lengths)[:-1])]


def _chosen(spool: Spool, candidates: Candidates, scored: _Scored, options: MiningOptions) -> MinedPhrases:
    """Phrases that reach the score, of all lengths, and their categories."""
    phrases: list[str] = []
    scores, counts, categories = [], [], []
    for size in range(2, options.max_words + 1):
        kept = np.flatnonzero(scored.scores[size - 1] >= options.min_score)
        texts = candidates.texts(size)
        phrases += [texts[row] for row in kept.tolist()]
        scores.append(scored.scores[size - 1][kept])
        counts.append(candidates.levels[size - 1].counts[kept])
        if spool.categories:
            categories += _typical(spool, size, kept, len(texts))
    if not phrases:
        best = max(float(part.max()) for part in scored.scores if len(part))
        raise ValueError(f"no candidate reaches min_score {options.min_score}: the best one has {best:.3f}")
    facts: dict[str, float | dict[str, float]] = {
        "candidates": sum(len(part) for part in scored.known),
        "known_candidates": int(sum(part.sum() for part in scored.known)),
    }
    return MinedPhrases(phrases, np.concatenate(scores), np.concatenate(counts), categories or None, facts)


def _typical(spool: Spool, size: int, kept: np.ndarray, rows: int) -> list[str | None]:
    """The category in which each kept n-gram is most surprisingly frequent; None where it is never in one."""
    names = list(spool.categories)
    place = np.full(rows, -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    counts = np.zeros((len(kept), len(names)))
    words = np.zeros(len(names))
    for index in range(len(spool)):
        ids = spool.load("ids", index)
        # Each text ends with a mark and one more stands before the first.
        text = np.cumsum(ids == TEXT_END) - 1
        of_text = spool.load("categories", index)
        category = of_text[np.minimum(text, len(of_text) - 1)]
        is_word = (ids >= 0) & (category >= 0)
        words += np.bincount(category[is_word], minlength=len(names))
        at, row = places(spool, size, index)
        wanted = (place[row] >= 0) & (category[at] >= 0)
        np.add.at(counts, (place[row[wanted]], category[at[wanted]]), 1)
    # p log(p / q): frequent there, and more so than elsewhere.
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    usual = np.maximum(words, 1) / max(1.0, words.sum())
    surprise = share * np.log(np.maximum(share, 1e-12) / usual)
    best = surprise.argmax(axis=1)
    return [names[best[i]] if counts[i].any() else None for i in range(len(kept))]
