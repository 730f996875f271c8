"""The state of an index in FAISS: rows, vectors, codes, words. What building, saving and searching it share.

Apart from `index.py`, so that the modules that fill, write and read an index need not know who searches it.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rexbert_hf.retrieval.serving.codes import build_codes
from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.lexical import LexicalIndex
from rexbert_hf.retrieval.serving.product_rows import Batch, ProductRows
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, encode
from rexbert_hf.retrieval.serving.search_index import SearchIndex
from rexbert_hf.retrieval.serving.vector_store import VectorStore

logger = logging.getLogger(__name__)

SMALL_CATALOGUE = 50_000
"""Without FAISS, an index of so many products is searched exactly, whatever its kind."""


class IndexState(SearchIndex):
    """What an index holds.

    Args:
        options: how it is built.
        identity: of the model that encodes its products.
        model: the model.

    Attributes:
        rows: product ids, texts, filter columns, and which rows count.
        store: their vectors.
        codes: of all rows, see `codes.py`; None where every vector is compared.
        lexical: BM25 of the rows, once it was asked for.
        cache: of embeddings, if there is one.
        scratch: folder of the vectors until the index is saved.
    """

    def __init__(self, options: IndexOptions, identity: ModelIdentity | None, model: Any = None) -> None:
        super().__init__(options, identity, model)
        self.rows = ProductRows(options.filters)
        self.store = VectorStore(0, options.storage)
        self.codes: Any = None
        self.lexical: LexicalIndex | None = None
        self.cache: EmbeddingCache | None = None
        self.folder: Path | None = None
        self.version: Path | None = None
        self._masks: dict[str, np.ndarray] = {}
        self.scratch: tempfile.TemporaryDirectory[str] | None = None

    def encode(self, batch: Batch) -> np.ndarray:
        """Vectors of a batch's texts, from the cache where there is one.

        Args:
            batch: see `product_rows.py`.
        """
        if self.cache is not None:
            return self.cache.encode(batch.texts)
        return encode(self.model, batch.texts)

    def use_cache(self, folder: str | Path | None) -> None:
        """Look up texts in an embedding cache from now on.

        Args:
            folder: of the cache; None leaves it.
        """
        if folder is not None:
            self.cache = EmbeddingCache(folder, self.model)

    def build_search(self) -> None:
        """Build codes of all rows, and BM25 if it is wanted."""
        options = self.options
        try:
            self.codes = build_codes(self.store, options.kind, options.graph_links, options.ef_construction)
        except ImportError as error:
            if len(self.store) > SMALL_CATALOGUE:
                raise
            logger.warning("%s; %d products are searched exactly", error, len(self.store))
            self.codes = None
        self.lexical = None
        if options.lexical:
            self.words()

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.store.dim

    def __len__(self) -> int:
        return self.rows.count

    def words(self) -> LexicalIndex:
        """BM25 of all rows, built anew if rows were added."""
        if self.lexical is None or self.lexical.rows != len(self.rows):
            living = np.flatnonzero(self.rows.alive)
            texts = self.rows.texts.take(pa.array(living)).to_pylist()
            options = self.options
            self.lexical = LexicalIndex.build(texts, options.stem, living, len(self.rows), options.spelling)
        return self.lexical

    def kill(self, rows: np.ndarray) -> int:
        """Mark rows as dead; returns how many.

        Args:
            rows: -1 is none.
        """
        rows = rows[rows >= 0]
        self._masks.clear()
        if len(rows):
            self.rows.alive = self.rows.alive.copy()  # searches that run keep theirs
            self.rows.alive[rows] = False
        return len(rows)
