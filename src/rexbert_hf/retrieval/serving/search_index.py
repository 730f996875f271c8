"""What every index answers alike, whatever keeps its vectors: queries in, products with scores out."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rexbert_hf.retrieval.serving.index_options import MODES, IndexOptions
from rexbert_hf.retrieval.serving.lexical import LexicalIndex, fuse
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, encode, load_model, normalised
from rexbert_hf.retrieval.serving.texts import valid_text

FUSION_DEPTH, FUSED_A_HIT = 100, 4
"""Hits of each side that a hybrid search fuses: four for each hit wanted, at least 100."""

Hits = list[tuple[str, float]]


class SearchIndex(abc.ABC):
    """Products that are searched by text or by vector.

    Args:
        options: how the index was built.
        identity: of the model that encoded the products.
        model: the model, or None to load it by its name when a text is searched for.
    """

    def __init__(self, options: IndexOptions, identity: ModelIdentity | None, model: Any = None) -> None:
        self.options, self.identity = options, identity
        self._model = model

    @property
    def model(self) -> Any:
        """What encodes queries and new products.

        Raises:
            ValueError: if there is none, or it is not the one that the index was built with.
        """
        if self._model is None:
            if self.identity is None:
                raise ValueError("this index was built from vectors: search with vectors, or set index.model")
            try:
                self.model = load_model(self.identity.name, self.identity.revision)
            except OSError as error:
                name, reason = self.identity.name, str(error).strip().splitlines()[0]
                raise ValueError(f"{name}, this index's model, cannot be loaded ({reason:.120}): give model=") from None
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        """Take a model, if it is the one of the index."""
        loaded = load_model(model)
        if self.identity is not None:
            self.identity.check(loaded)
        self._model = loaded

    def search(
        self,
        queries: str | Sequence[str] | np.ndarray,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        mode: str = "dense",
    ) -> list[Hits]:
        """The best products of each query: (product id, score), best first.

        A query without any text has no hits. Fewer than k come back where fewer products pass.

        Args:
            queries: texts, or float32 vectors `[Q, D]` (dense only).
            k: hits wanted.
            filter: see `filters.py`, such as {"price": (None, 50), "category": "Shoes"}.
            mode: "dense" (scores are cosines, or inner products), "lexical" (BM25) or "hybrid" (reciprocal rank fusion
                of both).

        Raises:
            ValueError: for a vector that is not finite or too wide, k below 1, an unknown mode or filter column.
        """
        if mode not in MODES:
            raise ValueError(f"search mode {mode!r} is unknown: choose one of {', '.join(MODES)}")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"k={k!r}: ask for at least one hit, in a whole number")
        if isinstance(queries, str):
            queries = [queries]
        if isinstance(queries, np.ndarray) or (len(queries) and not isinstance(queries[0], str)):
            if mode != "dense":
                raise ValueError(f"mode '{mode}' needs the texts of queries, not vectors")
            return self._dense(self._checked(queries), k, filter)
        if wrong := [text for text in queries if not isinstance(text, str)]:
            raise TypeError(f"queries are texts or vectors of numbers, not {str(wrong[0])[:60]!r} among texts")
        texts = [self.corrected(valid_text(text)) for text in queries]
        asked = [i for i, text in enumerate(texts) if text.strip()]
        hits: list[Hits] = [[] for _ in texts]
        if asked:
            for i, found in zip(asked, self._search_texts([texts[i] for i in asked], k, filter, mode), strict=True):
                hits[i] = found
        return hits

    def corrected(self, query: str) -> str:
        """A query as it is searched for: its own words, or with `spelling` the catalogue's.

        Args:
            query: any.
        """
        if not self.options.spelling:
            return query
        speller = self.words().speller
        assert speller is not None
        return speller.correct(query)

    def _search_texts(self, texts: list[str], k: int, filter: Mapping[str, Any] | None, mode: str) -> list[Hits]:
        if mode == "lexical":
            return self._lexical(texts, k, filter)
        vectors = self._checked(encode(self.model, texts, "query"))
        if mode == "dense":
            return self._dense(vectors, k, filter)
        depth = max(FUSED_A_HIT * k, FUSION_DEPTH)
        sides = zip(self._dense(vectors, depth, filter), self._lexical(texts, depth, filter), strict=True)
        return [fuse(rankings, k, (self.options.dense_weight, 1.0)) for rankings in sides]

    def _checked(self, vectors: Any) -> np.ndarray:
        try:
            array = np.asarray(vectors)
        except ValueError:  # of different lengths
            array = np.array(None)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"queries are texts or vectors of numbers, not {str(vectors)[:60]!r}")
        vectors = np.ascontiguousarray(array, dtype=np.float32)
        vectors = vectors[None] if vectors.ndim == 1 else vectors
        if vectors.shape[1] != self.dim:
            raise ValueError(f"queries have {vectors.shape[1]} dimensions, the index {self.dim}: use its own model")
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise ValueError(f"the vector of query {wrong[0]} is not finite: check the model or the query")
        return normalised(vectors) if self.options.metric == "cosine" else vectors

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Width of the vectors."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Products."""

    @abc.abstractmethod
    def _dense(self, vectors: np.ndarray, k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """Hits by vectors that are checked already."""

    @abc.abstractmethod
    def _lexical(self, texts: Sequence[str], k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """Hits by words."""

    @abc.abstractmethod
    def words(self) -> LexicalIndex:
        """BM25 of the products, built when it is first asked for."""

    @abc.abstractmethod
    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """The encoded text of products, None for unknown ones."""

    @abc.abstractmethod
    def facts(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Filter columns of products, such as price and category_path; {} for unknown ones."""

    @abc.abstractmethod
    def choices(self, column: str) -> list[str]:
        """Texts that a filter column holds, sorted; [] for numbers, and for a column that the index does not have."""

    @property
    @abc.abstractmethod
    def filter_columns(self) -> list[str]:
        """Columns that a search may be filtered by."""

    @abc.abstractmethod
    def upsert(self, products: Any) -> int:
        """Add products, or replace those of the same id; returns how many had to be encoded."""

    @abc.abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Remove products; returns how many were there."""


def checked_documents(vectors: np.ndarray, ids: Sequence[str], metric: str) -> np.ndarray:
    """Vectors of products as the index keeps them.

    Args:
        vectors: `[N, D]`.
        ids: their products, for messages.
        metric: "cosine" normalises.

    Raises:
        ValueError: for a vector that is not finite; its product is named.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ValueError(f"the vector of product {ids[wrong[0]]} is not finite: check the model and the product's text")
    return normalised(vectors) if metric == "cosine" else vectors
