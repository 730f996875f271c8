"""Noun phrases: by spaCy where one of its English models is installed, else by a light chunker of our own.

E-BERT adds noun phrases to texts in which few phrases of the pool occur. The chunker takes runs of adjectives,
participles and nouns that end in a noun, without the article; word classes are guesses (`word_classes.py`). It knows
English; text in other scripts has no noun phrases here.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from rexbert_hf.phrases.guides import fingerprint_of
from rexbert_hf.phrases.word_classes import (
    ADJECTIVE,
    DETERMINER,
    GERUND,
    NOUN,
    NUMBER,
    OTHER,
    PAST,
    SUBJECT,
    VERB,
    word_class,
)
from rexbert_hf.phrases.words import Words, decoded, split_chunks

logger = logging.getLogger(__name__)

_VERSION = 1
"""Raise it when the light chunker would find anything else; it is part of the fingerprint."""
Method = Literal["auto", "spacy", "light"]


def noun_phrases(text: str, method: Method = "light") -> list[tuple[int, int]]:
    """Noun phrases of one text, sorted, not overlapping.

    Args:
        text: any.
        method: as of `NounPhraseFinder`.

    >>> text = "The battery lasts long, and this wireless gaming mouse fits small hands."
    >>> [text[start:end] for start, end in noun_phrases(text)]
    ['battery', 'wireless gaming mouse', 'small hands']
    """
    return finder(method)([text])[0]


@lru_cache(maxsize=4)
def finder(method: Method) -> NounPhraseFinder:
    """A finder, made once in a process.

    Args:
        method: as of `NounPhraseFinder`.
    """
    return NounPhraseFinder(method)


class NounPhraseFinder:
    """Finds noun phrases in texts; picklable, and known by its fingerprint.

    Args:
        method: "spacy", "light", or "auto": spaCy where it and an English model are installed, else light, with one
            line in the log.
        max_words: longer phrases lose their first words (titles are one long run of nouns).

    Attributes:
        method: "spacy" or "light", whichever is used.
        model: the spaCy model; None for light.

    Raises:
        ValueError: if "spacy" is asked for and no English model is installed.

    Example:
        >>> NounPhraseFinder("light")(["I bought a 16GB memory card.", ""])
        [[(11, 27)], []]
    """

    def __init__(self, method: Method = "auto", *, max_words: int = 6) -> None:
        if method not in get_args(Method):
            raise ValueError(f"noun phrases are found by one of {', '.join(get_args(Method))}; got {method!r}")
        self.model = None if method == "light" else spacy_model()
        if method == "spacy" and self.model is None:
            raise ValueError(
                "no English spaCy model is installed: run 'python -m spacy download en_core_web_sm', or use 'light'"
            )
        if method == "auto" and self.model is None:
            logger.info("no English spaCy model is installed: noun phrases by the light chunker")
        self.method: Method = "light" if self.model is None else "spacy"
        self.max_words = max_words
        versions = (_VERSION,) if self.model is None else tuple(map(_version, ("spacy", self.model)))
        self.fingerprint = fingerprint_of("noun phrases", self.method, self.model, max_words, *versions)

    def __call__(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """(first character, one past the last) of the noun phrases of each text, sorted, not overlapping."""
        if self.model is not None:
            return [_spacy_spans(doc, self.max_words) for doc in _pipeline(self.model).pipe(texts)]
        found: list[list[tuple[int, int]]] = []
        for _, words in split_chunks(texts):
            found += _light_spans(words, self.max_words)
        return found


def spacy_model() -> str | None:
    """Name of an installed English spaCy model, the smallest; None when there is none, or no spaCy."""
    try:
        importlib.metadata.version("spacy")
    except importlib.metadata.PackageNotFoundError:
        return None
    names = {point.name for point in importlib.metadata.entry_points(group="spacy_models")}
    sizes = [f"en_core_web_{size}" for size in ("sm", "md", "lg", "trf")]
    return next((name for name in sizes if name in names), None)


def _version(package: str) -> str:
    return importlib.metadata.version(package)


@lru_cache(maxsize=2)
def _pipeline(model: str) -> Any:
    import spacy

    return spacy.load(model, exclude=["ner", "lemmatizer"])


def _spacy_spans(doc: Any, max_words: int) -> list[tuple[int, int]]:
    """Noun chunks without leading articles, pronouns and the like, and none of those alone."""
    spans = []
    for chunk in doc.noun_chunks:
        tokens = list(chunk)[-max_words:]
        while tokens and (tokens[0].pos_ in ("DET", "PRON", "PUNCT", "SPACE", "CCONJ", "NUM") or tokens[0].is_space):
            tokens.pop(0)
        if tokens:
            spans.append((tokens[0].idx, tokens[-1].idx + len(tokens[-1].text)))
    return spans


def _light_spans(words: Words, max_words: int) -> list[list[tuple[int, int]]]:
    kinds = _classes(words)
    first, last = _chunks(kinds, max_words)
    texts = np.searchsorted(words.offsets, first, side="right") - 1
    spans: list[list[tuple[int, int]]] = [[] for _ in range(len(words.offsets) - 1)]
    places = zip(texts.tolist(), words.start[first].tolist(), words.end[last].tolist(), strict=True)
    for text, start, end in places:
        spans[text].append((start, end))
    return spans


def _classes(words: Words) -> np.ndarray:
    """Class of each unit, uint8 `[U]`; each different word is looked at once."""
    _, first, inverse = np.unique(words.hashes, return_index=True, return_inverse=True)
    codes, offsets = words.normal(first)
    text = decoded(codes)
    borders = offsets.tolist()
    known = [word_class(text[a:b]) for a, b in pairwise(borders)]
    return np.array(known, dtype=np.uint8)[inverse]


def _chunks(kinds: np.ndarray, max_words: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last unit of each noun phrase."""
    before = np.concatenate([[OTHER], kinds[:-1]])
    noun = (kinds == NOUN) | ((kinds == VERB) & (before == DETERMINER))
    past = (kinds == PAST) & ~np.isin(before, (SUBJECT, NOUN))
    gerund = (kinds == GERUND) & (before != SUBJECT)
    inside = noun | past | gerund | (kinds == ADJECTIVE) | (kinds == NUMBER)
    edge = np.diff(inside.astype(np.int8), prepend=0, append=0)
    begin, end = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    place = np.arange(len(kinds))
    last = np.maximum.accumulate(np.where(noun, place, -1))[end - 1]
    first = np.maximum(begin, last - max_words + 1)
    # A number at the front counts things: it is not part of their name.
    not_number = np.where(kinds != NUMBER, place, len(kinds))
    first = np.minimum.accumulate(not_number[::-1])[::-1][np.minimum(first, len(kinds) - 1)]
    # One noun alone counts after an article only: without one it may well be a verb.
    named = (last >= begin) & ((last > first) | (before[first] == DETERMINER))
    return first[named], last[named]
