"""BM25 over product texts (bm25s), and reciprocal rank fusion of its hits with those of vectors.

bm25s computes all scores when it indexes, so changed products make it index again: that is done at the next lexical
search or save, not at each upsert and delete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.retrieval.serving.exact import best_places
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.spelling import Speller, load_rapidfuzz
from rexbert_hf.retrieval.serving.stemming import porter_stem

FUSION_CONSTANT = 60
"""What is added to a rank before it is inverted (Cormack, Clarke and Buettcher, 2009)."""

_WORD = re.compile(r"\w+")
_SETTINGS, _NUMBERS = "lexical.json", "rows.npy"
_PARAMS = "params.index.json"
_ALWAYS = {"method": "lucene", "idf_method": "lucene", "dtype": "float32", "int_dtype": "int32", "backend": "numpy"}
"""bm25s's parameters in what is saved here; its other back-ends compare no borders."""

_NUMERIC = {"k1", "b", "delta", "num_docs", "version"}


def load_bm25s() -> Any:
    """bm25s, or an error that says how to get it.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise ImportError("lexical search needs bm25s: pip install rexbert-hf[search]") from None
    return bm25s


def check_installed(options: IndexOptions) -> None:
    """Whether there is what BM25 and spelling of an index need; before the encoding that would be lost.

    Args:
        options: of the index.

    Raises:
        ImportError: if there is not.
    """
    if options.lexical:
        load_bm25s()
        if options.spelling:
            load_rapidfuzz()


def words_of(text: str, stem: bool = True) -> list[str]:
    """Words of a text in lower case, or their English stems.

    Args:
        text: any.
        stem: whether to stem.

    Example:
        >>> words_of("LED Lamps, 2-Pack")
        ['led', 'lamp', '2', 'pack']
    """
    words: list[str] = _WORD.findall(text.lower())
    return [porter_stem(word) for word in words] if stem else words


class LexicalIndex:
    """BM25 scores of texts.

    Args:
        bm25: bm25s's index; None for no text with a word.
        numbers: row of each text, int64 `[T]`.
        rows: rows in all, when it was built.
        stem: whether words were stemmed.
        speller: knows the words of the texts; None: nobody asked for it.

    Example:
        >>> index = LexicalIndex.build(["red lamp", "blue lamps", "blue chair"])
        >>> index.search(["lamp blue"], 3)[1].tolist()
        [[1, 0, 2]]
    """

    def __init__(
        self, bm25: Any, numbers: np.ndarray, rows: int, stem: bool = True, speller: Speller | None = None
    ) -> None:
        self.bm25, self.numbers, self.rows, self.stem, self.speller = bm25, numbers, rows, stem, speller

    @classmethod
    def build(
        cls,
        texts: Sequence[str],
        stem: bool = True,
        numbers: np.ndarray | None = None,
        rows: int | None = None,
        spelling: bool = False,
    ) -> LexicalIndex:
        """Index texts.

        Args:
            texts: any number.
            stem: whether to stem (English).
            numbers: the row of each text; by default its place.
            rows: rows in all; by default the number of texts.
            spelling: learn how their words are written too.
        """
        bm25s = load_bm25s()
        tokens = [words_of(text, stem) for text in texts]
        numbers = np.arange(len(tokens)) if numbers is None else numbers
        bm25 = bm25s.BM25() if any(tokens) else None
        if bm25 is not None:
            bm25.index(tokens, show_progress=False)
        speller = Speller.of_texts(texts) if spelling else None
        return cls(bm25, numbers, len(tokens) if rows is None else rows, stem, speller)

    def search(self, queries: Sequence[str], k: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows `[Q, k]`, best first, of equal ones the first row; -inf and -1 where fewer hold a word.

        Args:
            queries: texts.
            k: rows wanted.
            mask: bool `[N]`, rows that may be returned.

        Raises:
            ValueError: if the index turns out to be damaged.
        """
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        if self.bm25 is None:
            return scores, rows
        for i, query in enumerate(queries):
            known = [word for word in words_of(query, self.stem) if word in self.bm25.vocab_dict]
            if not known:
                continue
            try:
                all_scores = self.bm25.get_scores(known)
            except IndexError:  # the arrays are mapped, and were not read when they were opened
                raise ValueError(
                    "the BM25 index is damaged (it names absent products): build the index again"
                ) from None
            if mask is not None:
                all_scores = np.where(mask[self.numbers], all_scores, 0)
            found = np.flatnonzero(all_scores > 0)
            if len(found) > k:
                found = found[best_places(all_scores[found], k)]
            found = found[np.lexsort((found, -all_scores[found]))]
            rows[i, : len(found)], scores[i, : len(found)] = self.numbers[found], all_scores[found]
        return scores, rows

    def save(self, folder: Path) -> None:
        """Write bm25s's own files (numpy arrays and JSON).

        Args:
            folder: made when missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.bm25 is not None:
            self.bm25.save(folder, show_progress=False)
        if self.speller is not None:
            self.speller.save(folder)
        np.save(folder / _NUMBERS, self.numbers, allow_pickle=False)
        (folder / _SETTINGS).write_text(json.dumps({"rows": self.rows, "stem": self.stem}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, mapped: bool = True) -> LexicalIndex:
        """Read what `save` wrote.

        Args:
            folder: its folder.
            mapped: map the arrays instead of reading them.

        Raises:
            ValueError: if it is damaged, or a part of it is missing.
            OSError: if the system cannot read it now.
        """
        bm25s = load_bm25s()
        try:
            settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            rows, stem = settings["rows"], settings["stem"]
            numbers = np.load(folder / _NUMBERS, allow_pickle=False)
            _check_numbers(numbers, rows, stem)
            bm25 = None
            if (folder / _PARAMS).exists():
                _check_parameters(json.loads((folder / _PARAMS).read_text(encoding="utf-8")), len(numbers))
                bm25 = bm25s.BM25.load(folder, mmap=mapped, show_progress=False)
                _check_scores(bm25.scores, bm25.vocab_dict)
            return cls(bm25, numbers, rows, stem, Speller.load(folder))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError) as error:
            # Of what a file holds numpy raises OSError without a number.
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
                raise
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder} holds no BM25 index ({told}): build the index again") from None


def _check_numbers(numbers: Any, rows: Any, stem: Any) -> None:
    """Whether each text has the number of a row."""
    if type(rows) is not int or type(stem) is not bool:
        raise ValueError(f"{_SETTINGS}: rows is a number and stem true or false")
    fits = isinstance(numbers, np.ndarray) and numbers.ndim == 1 and numbers.dtype.kind == "i"
    if not fits or (len(numbers) and not (numbers.min() >= 0 and numbers.max() < rows)):
        raise ValueError(f"{_NUMBERS} holds other numbers than those of {rows} rows")


def _check_parameters(params: Any, texts: int) -> None:
    """Whether they are those that `save` writes: bm25s takes all that it finds, and acts on it."""
    if not isinstance(params, dict) or (unknown := params.keys() - _ALWAYS.keys() - _NUMERIC):
        raise ValueError(f"{_PARAMS}: {next(iter(sorted(unknown))) if isinstance(params, dict) else 'no parameters'}")
    if wrong := [name for name, value in _ALWAYS.items() if params.get(name, value) != value]:
        raise ValueError(f"{_PARAMS}: {wrong[0]} is {params[wrong[0]]!r:.40}, not {_ALWAYS[wrong[0]]!r}")
    if type(params.get("num_docs")) is not int or params["num_docs"] != texts:
        raise ValueError(f"{_PARAMS}: num_docs is {params.get('num_docs')!r:.40}, there are {texts} texts")


def _check_scores(arrays: dict[str, Any], words: Any) -> None:
    """Whether each word has a place, and each place scores."""
    data, rows, starts = (arrays[name] for name in ("data", "indices", "indptr"))
    kinds = [(getattr(array, "ndim", 0), array.dtype.kind) for array in (data, rows, starts)]
    if kinds != [(1, "f"), (1, "i"), (1, "i")] or len(data) != len(rows) or not len(starts):
        raise ValueError("its scores are no lists of numbers")
    if starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
        raise ValueError("its lists of scores overlap")
    if not isinstance(words, dict):
        raise ValueError("its words are no map")
    places = len(starts) - 1  # bm25s gives the empty word, which no text holds, a number but no place
    if any(word and not (type(number) is int and 0 <= number < places) for word, number in words.items()):
        raise ValueError("a word has no scores")


def fuse(
    rankings: Sequence[Sequence[tuple[Any, float]]], k: int, weights: Sequence[float] | None = None
) -> list[tuple[Any, float]]:
    """Reciprocal rank fusion of several rankings of one query: each hit counts weight / (60 + rank).

    Args:
        rankings: (product, score), best first.
        k: hits wanted.
        weights: of the rankings; 1 by default.

    Example:
        >>> [name for name, _ in fuse([[("a", 9.0), ("b", 8.0)], [("b", 0.5), ("c", 0.1)]], 2)]
        ['b', 'a']
    """
    scores: dict[Any, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, (name, _) in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + weight / (FUSION_CONSTANT + rank)
    # Ties keep the order of the first ranking that held them.
    return sorted(scores.items(), key=lambda item: -item[1])[:k]
