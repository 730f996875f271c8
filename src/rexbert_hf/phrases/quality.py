"""Score candidates by distant supervision: many small trees, each on a few known phrases and a few random others.

Random candidates are called negatives although some are good phrases. As each tree sees only a few, and others, the
errors spread and the mean over trees is robust (AutoPhrase, K of N). The score is that mean, in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from rexbert_hf.phrases.function_words import FUNCTION_WORDS
from rexbert_hf.phrases.words import normalise

_BETWEEN_NAMES = re.compile(r"\s*[>,;|/&]\s*|\s+and\s+|\s+-\s+")


def known_phrases(names: Iterable[str]) -> set[str]:
    """Normalised phrases of two words or more that a list of names holds: each name, and the parts of an enumeration.

    Args:
        names: categories, brands, titles; "Cameras > Camera Lenses & Lens Caps" gives both phrases of its last level.

    Raises:
        ValueError: for one string, or a name that is no string.

    >>> sorted(known_phrases(["Cameras > Camera Lenses & Lens Caps", "Table Lamps"]))
    ['camera lenses', 'camera lenses & lens caps', 'lens caps', 'table lamps']
    """
    if isinstance(names, str):
        raise ValueError("positives is one string: give a list of known phrases")
    found = set()
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"known phrase {number} is {type(name).__name__}, not a string: leave it out")
        levels = re.split(r"\s*[>|]\s*", name)
        for part in {*levels, *_BETWEEN_NAMES.split(name)}:
            words = normalise(part).split(" ")
            edges_name = not {words[0], words[-1]} & FUNCTION_WORDS
            if len(words) > 1 and edges_name and any(word.isalpha() for word in words):
                found.add(" ".join(words))
    return found


Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


def score_candidates(
    features: np.ndarray,
    positive: np.ndarray,
    trees: int = 400,
    sample: int = 100,
    seed: int = 0,
    mapper: Map = map,
) -> np.ndarray:
    """Share of trees that call each candidate a phrase, float64 `[C]`.

    Args:
        features: float32 `[C, F]`.
        positive: which candidates are known phrases, bool `[C]`; all others may be drawn as negatives.
        trees: how many.
        sample: positives and negatives that one tree sees, at most.
        seed: of the draws and of the trees.
        mapper: applies a function to items in order; one with threads makes it faster and changes nothing else.

    Raises:
        ValueError: if no candidate is known, or all are.
        ImportError: without scikit-learn.

    Example:
        >>> features = np.array([[3.0], [2.9], [0.1], [0.0]], dtype=np.float32)
        >>> scores = score_candidates(features, np.array([True, False, False, False]), trees=20)
        >>> bool(scores[1] > scores[2])
        True
    """
    try:
        from sklearn.tree import DecisionTreeClassifier
    except ImportError as error:
        raise ImportError("mining phrases needs scikit-learn: pip install scikit-learn") from error

    good, other = np.flatnonzero(positive), np.flatnonzero(~positive)
    if not len(good) or not len(other):
        raise ValueError(f"{len(good)} of {len(positive)} candidates are known phrases: there is nothing to tell apart")
    size = min(sample, len(good), len(other))
    labels = np.repeat([1, 0], size)

    def grow(seeds: np.random.SeedSequence) -> np.ndarray:
        rng = np.random.default_rng(seeds)
        rows = np.concatenate([rng.choice(good, size, replace=False), rng.choice(other, size, replace=False)])
        tree = DecisionTreeClassifier(max_features=min(4, features.shape[1]), random_state=int(rng.integers(2**31)))
        tree.fit(features[rows], labels)
        votes: np.ndarray = tree.predict_proba(features, check_input=False)[:, 1]
        return votes

    scores = np.zeros(len(features))
    for votes in mapper(grow, np.random.SeedSequence(seed).spawn(trees)):
        scores += votes
    return scores / trees
