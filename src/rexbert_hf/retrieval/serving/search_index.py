"""What every index answers alike, whatever keeps its vectors: queries in, products with scores out."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rexbert_hf.hub.loading import first_line
from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
from rexbert_hf.retrieval.serving.encoding import Bfloat16
from rexbert_hf.retrieval.serving.index_options import MODES, IndexOptions
from rexbert_hf.retrieval.serving.lexical import LexicalIndex, fuse
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, encode, load_model, normalised
from rexbert_hf.retrieval.serving.texts import valid_text

FUSION_DEPTH, FUSED_A_HIT = 100, 4
"""Hits of each side that a hybrid search fuses: four for each hit wanted, at least 100."""

Hits = list[tuple[str, float]]


class Searched(Protocol):
    """What a search reads, from its first part to its last: one version of the products."""

    options: IndexOptions

    @property
    def dim(self) -> int:
        """Width of the vectors."""

    def search_vectors(self, vectors: np.ndarray, k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """Hits by vectors that are checked already."""

    def search_words(self, texts: Sequence[str], k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """Hits by words."""

    def words(self) -> LexicalIndex:
        """BM25 of the products, built when it is first asked for."""


class SearchIndex(abc.ABC):
    """Products that are searched by text or by vector.

    Args:
        options: how the index was built.
        identity: of the model that encoded the products.
        model: the model, or None to load it by its name when a text is searched for.

    Attributes:
        cache: of embeddings, if there is one.
        bf16: whether texts are encoded in bfloat16, see `encode`; a cache keeps to what it began with.
    """

    def __init__(self, options: IndexOptions, identity: ModelIdentity | None, model: Any = None) -> None:
        self.options, self.identity = options, identity
        self.cache: EmbeddingCache | None = None
        self.bf16: Bfloat16 = "auto"
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
            name, revision = self.identity.name, self.identity.revision
            try:
                found = load_model(name, None if Path(name).is_dir() else revision)
            except (OSError, ValueError) as error:
                what = f"{name} at {revision}" if revision else name
                reason = first_line(error)
                raise ValueError(f"{what}, this index's model, cannot be loaded ({reason}): give model=") from None
            self.model = found
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        """Take a model, if it is the one of the index."""
        loaded = load_model(model)
        if self.identity is not None:
            self.identity.check(loaded)
        self._model = loaded
        if self.cache is not None:
            self.use_cache(self.cache.folder.parent)

    def search(
        self,
        queries: str | Iterable[str] | np.ndarray,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        mode: str = "dense",
    ) -> list[Hits]:
        """The best products of each query: (product id, score), best first.

        A query without any text has no hits, and one whose vector is zero no dense ones. Fewer than k come back where
        fewer products pass.

        Args:
            queries: texts (a list, an array, a column of pandas), or float32 vectors `[Q, D]` (dense only).
            k: hits wanted.
            filter: see `filters.py`, such as {"price": (None, 50), "category": "Shoes"}.
            mode: "dense" (scores are cosines, or inner products), "lexical" (BM25) or "hybrid" (reciprocal rank fusion
                of both).

        Raises:
            ValueError: for a vector that is not finite or too wide, k below 1, an unknown mode or filter column.
            TypeError: for queries that are neither.
        """
        if mode not in MODES:
            raise ValueError(f"search mode {mode!r} is unknown: choose one of {', '.join(MODES)}")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"k={k!r}: ask for at least one hit, in a whole number")
        k = int(k)  # FAISS and Qdrant take no number of numpy
        searched = self._searched()
        given = _listed(queries)
        if isinstance(given, np.ndarray) or (given and not isinstance(given[0], str)):
            if mode != "dense":
                raise ValueError(f"mode '{mode}' needs the texts of queries, not vectors")
            return _nearest(searched, _checked(searched, given), k, filter)
        if wrong := [text for text in given if not isinstance(text, str)]:
            raise TypeError(f"queries are texts or vectors of numbers, not {str(wrong[0])[:60]!r} among texts")
        texts = [_corrected(searched, valid_text(text)) for text in given]
        asked = [i for i, text in enumerate(texts) if text.strip()]
        hits: list[Hits] = [[] for _ in texts]
        if asked:
            found = self._search_texts(searched, [texts[i] for i in asked], k, filter, mode)
            for i, best in zip(asked, found, strict=True):
                hits[i] = best
        return hits

    def corrected(self, query: str) -> str:
        """A query as it is searched for: its own words, or with `spelling` the catalogue's.

        Args:
            query: any.
        """
        return _corrected(self._searched(), query)

    def _search_texts(
        self, searched: Searched, texts: list[str], k: int, filter: Mapping[str, Any] | None, mode: str
    ) -> list[Hits]:
        if mode == "lexical":
            return searched.search_words(texts, k, filter)
        vectors = _checked(searched, encode(self.model, texts, "query", bf16=self.bf16))
        if mode == "dense":
            return _nearest(searched, vectors, k, filter)
        depth = max(FUSED_A_HIT * k, FUSION_DEPTH)
        dense, lexical = _nearest(searched, vectors, depth, filter), searched.search_words(texts, depth, filter)
        weights = (searched.options.dense_weight, 1.0)
        return [fuse(rankings, k, weights) for rankings in zip(dense, lexical, strict=True)]

    def use_cache(self, folder: str | Path | None) -> None:
        """Look up texts of products in an embedding cache from now on.

        Args:
            folder: of the cache; None leaves it.
        """
        if folder is not None:
            self.cache = EmbeddingCache(folder, self.model, bf16=self.bf16)

    def _encoded(self, texts: list[str], ids: list[str]) -> np.ndarray:
        """Vectors of products as the index keeps them, from the cache where there is one."""
        found = encode(self.model, texts, bf16=self.bf16) if self.cache is None else self.cache.encode(texts)
        return checked_documents(found, ids, self.options.metric)

    @abc.abstractmethod
    def _searched(self) -> Searched:
        """The version of the products that a search that begins now reads."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._searched().dim

    @abc.abstractmethod
    def __len__(self) -> int:
        """Products."""

    def refresh(self) -> bool:
        """Open what was saved since the index was opened; returns whether there was anything.

        An index that reads its products where they are changed has nothing to open.
        """
        return False

    @abc.abstractmethod
    def ids(self) -> list[str]:
        """Ids of all products."""

    @abc.abstractmethod
    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """The encoded text of products, None for unknown ones.

        Args:
            ids: product ids.
        """

    @abc.abstractmethod
    def facts(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Filter columns of products, such as price and category_path; {} for unknown ones.

        Args:
            ids: product ids.
        """

    @abc.abstractmethod
    def choices(self, column: str) -> list[str]:
        """Texts that a filter column holds, sorted; [] for numbers, and for a column that the index does not have.

        Args:
            column: its name.
        """

    @property
    @abc.abstractmethod
    def filter_columns(self) -> list[str]:
        """Columns that a search may be filtered by."""

    @abc.abstractmethod
    def upsert(self, products: Any) -> int:
        """Add products, or replace those of the same id; returns how many had to be encoded.

        A product whose text is the same keeps its vector; its filter columns are written anew. One that has no text any
        more is removed, and counted in the log: whole records are due. A batch with an error in it changes nothing.

        Args:
            products: as for `ProductIndex.build`.
        """

    @abc.abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Remove products; returns how many were there.

        Args:
            ids: product ids, read as those of products are (7.0 is "7"); unknown ones are passed over.
        """


def _listed(queries: Any) -> Any:
    """Queries as a list, or as they are in an array of numbers."""
    if isinstance(queries, str):
        return [queries]
    if isinstance(queries, Mapping) or hasattr(queries, "columns"):  # these give the names of their columns
        raise TypeError(f"queries are texts or vectors of numbers, not a {type(queries).__name__}: give one column")
    if isinstance(queries, np.ndarray):
        return np.atleast_1d(queries).tolist() if queries.dtype.kind in "OUT" else queries
    return list(queries)


def _corrected(searched: Searched, query: str) -> str:
    if not searched.options.spelling:
        return query
    speller = searched.words().speller
    assert speller is not None
    return speller.correct(query)


def _nearest(searched: Searched, vectors: np.ndarray, k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
    """Hits by checked vectors; none by zero, to which all products are alike and the first rows would be its hits."""
    asked = np.flatnonzero(vectors.any(axis=1))
    if len(asked) == len(vectors):
        return searched.search_vectors(vectors, k, filter)
    hits: list[Hits] = [[] for _ in vectors]
    if len(asked):
        for i, best in zip(asked, searched.search_vectors(vectors[asked], k, filter), strict=True):
            hits[i] = best
    return hits


def _checked(searched: Searched, vectors: Any) -> np.ndarray:
    """Vectors of queries as they are compared with those of products."""
    try:
        array = np.asarray(vectors)
    except ValueError:  # of different lengths
        array = np.array(None)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"queries are texts or vectors of numbers, not {str(vectors)[:60]!r}")
    vectors = np.ascontiguousarray(array, dtype=np.float32)
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.shape[1] != searched.dim:
        raise ValueError(f"queries have {vectors.shape[1]} dimensions, the index {searched.dim}: use its own model")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ValueError(f"the vector of query {wrong[0]} is not finite: check the model or the query")
    return normalised(vectors) if searched.options.metric == "cosine" else vectors


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
