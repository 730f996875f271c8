"""The stock way to phrases, gensim's Phrases, on the very words that ours mines; and the real text both read.

gensim joins pairs of neighbouring words; a second walk over joined text gives phrases of up to four words. Its two
scorers are tried, with its own list of connector words and its default thresholds for joining.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gensim.models.phrases import ENGLISH_CONNECTOR_WORDS, Phrases, npmi_scorer, original_scorer

from rexbert_hf.phrases.mining_run import MinedTexts, MineRun, read_positives
from rexbert_hf.phrases.spool import Spool
from rexbert_hf.settings import load_settings

CONFIG = Path(__file__).resolve().parents[1] / "recipes" / "configs" / "mine_phrases_real.yaml"
SAMPLE = CONFIG.with_name("mine_phrases.yaml")
SCORERS = {"default": (original_scorer, 10.0), "npmi": (npmi_scorer, 0.5)}


def real_run() -> MineRun:
    """Settings of the recipe for the real text, or of the sample shop where the data is not there."""
    run = load_settings(MineRun, CONFIG)
    first = Path(str(run.texts[0].path))
    if first.exists():
        return run
    print(f"{first} is not there: the built-in sample shop instead, whose readings say little")
    return load_settings(MineRun, SAMPLE)


@contextmanager
def opened(run: MineRun) -> Iterator[tuple[MinedTexts, list[str]]]:
    """Texts and known phrases of a run."""
    with tempfile.TemporaryDirectory(prefix="phrases-") as folder:
        yield MinedTexts(run, Path(folder)), read_positives(run, Path(folder))


class WordRuns:
    """Runs of words between punctuation, as lists of strings, read from disk at every walk.

    Args:
        spool: the text, as `Spool.write` left it.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool

    def __iter__(self) -> Iterator[list[str]]:
        spellings = np.array(self.spool.vocabulary.spellings, dtype=object)
        for index in range(len(self.spool)):
            ids = self.spool.load("ids", index)
            is_word = np.concatenate([[False], ids >= 0, [False]])
            borders = np.flatnonzero(is_word[1:] != is_word[:-1])
            words = spellings[np.maximum(ids, 0)].tolist()
            for start, end in zip(borders[0::2].tolist(), borders[1::2].tolist(), strict=True):
                yield words[start:end]


def count_pairs(runs: object, min_count: int) -> Phrases:
    """Count words and pairs with gensim."""
    return Phrases(
        runs, min_count=min_count, threshold=1e-9, max_vocab_size=100_000_000, connector_words=ENGLISH_CONNECTOR_WORDS
    )


def ranked(counts: Phrases, scorer: str) -> dict[str, float]:
    """Scores of all pairs that occur often enough."""
    counts.scoring, counts.threshold = SCORERS[scorer][0], -1.0
    return {phrase.replace("_", " "): score for phrase, score in counts.export_phrases().items()}


def gensim_phrases(spool: Spool, min_count: int = 10, max_words: int = 6) -> dict[str, list[str]]:
    """Phrases by falling score, for each scorer: pairs, and pairs of joined pairs."""
    runs = WordRuns(spool)
    pairs = count_pairs(runs, min_count)
    found = {}
    for name, (_, threshold) in SCORERS.items():
        scores = ranked(pairs, name)
        pairs.threshold = threshold
        longer = ranked(count_pairs(pairs.freeze()[runs], min_count), name)
        scores = {**longer, **scores}
        found[name] = sorted(
            (phrase for phrase in scores if 2 <= len(phrase.split(" ")) <= max_words), key=lambda p: (-scores[p], p)
        )
    return found
