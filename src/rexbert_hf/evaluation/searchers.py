"""Systems that rank a catalogue for queries: a bi-encoder, BM25, a draw.

A searcher is made once for a catalogue, then asked with the queries as they are and with each perturbed slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from rexbert_hf.evaluation.task import RANDOM, TaskOptions
from rexbert_hf.retrieval.serving.lexical import LexicalIndex
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, find_base, load_biencoder
from rexbert_hf.retrieval.training.evaluator import DEPTH
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k

BM25, DSSM = "bm25", "dssm"
MAX_TOKENS = 64


class Searcher(Protocol):
    """Ranks the products that it was made with."""

    def search(self, queries: Sequence[str]) -> np.ndarray:
        """Product numbers, best first, `[Q, K]`; -1 where nothing more was found.

        Args:
            queries: texts.
        """


class DenseSearcher:
    """Exact search with a bi-encoder.

    Args:
        model: a `SentenceTransformer`.
        texts: of the products.
        batch_size: texts of one forward pass.
        depth: products of a ranking.
    """

    def __init__(self, model: Any, texts: Sequence[str], batch_size: int, depth: int = DEPTH) -> None:
        self.model, self.batch_size, self.depth = model.eval(), batch_size, depth
        self.products = encode(model, texts, "document", batch_size)

    def search(self, queries: Sequence[str]) -> np.ndarray:
        """As `Searcher.search`."""
        return exact_top_k(encode(self.model, queries, "query", self.batch_size), self.products, self.depth)[1]


class LexicalSearcher:
    """BM25 with English stems.

    Args:
        texts: of the products.
        depth: products of a ranking.

    Example:
        >>> LexicalSearcher(["red lamp", "blue chair"], depth=2).search(["lamps"]).tolist()
        [[0, -1]]
    """

    def __init__(self, texts: Sequence[str], depth: int = DEPTH) -> None:
        self.index, self.depth = LexicalIndex.build(texts), depth

    def search(self, queries: Sequence[str]) -> np.ndarray:
        """As `Searcher.search`."""
        return self.index.search(queries, self.depth)[1]


class RandomSearcher:
    """Products in an order drawn for each query: what chance gives.

    Args:
        size: products of the catalogue.
        seed: of the draws.
        depth: products of a ranking.

    Example:
        >>> RandomSearcher(50, seed=0, depth=3).search(["lamp"]).shape
        (1, 3)
    """

    def __init__(self, size: int, seed: int, depth: int = DEPTH) -> None:
        self.size, self.seed, self.depth = size, seed, min(depth, size)

    def search(self, queries: Sequence[str]) -> np.ndarray:
        """As `Searcher.search`."""
        rng = np.random.default_rng(self.seed)
        return np.stack([rng.choice(self.size, self.depth, replace=False) for _ in queries])


def biencoder(model: str, options: TaskOptions) -> tuple[Any, tuple[str, ...]]:
    """A model as a bi-encoder, and what a reader must know of how it was made one.

    Args:
        model: folder or Hub name; without a pooling head its token states are averaged, or pooled as the options say.
        options: of the run.

    Raises:
        ValueError: if it cannot be loaded.
    """
    settings = BiEncoderSettings(
        base=model,
        pooling=options.pooling,  # type: ignore[arg-type]
        max_tokens=options.max_length or MAX_TOKENS,
        shared=None,
    )
    made = load_biencoder(settings)
    if options.device is not None:
        made = made.to(options.device)
    return made, pooling_note(model, options)


def pooling_note(model: str, options: TaskOptions) -> tuple[str, ...]:
    """Says that a bi-encoder pools as nobody trained it to; nothing where the model brings a pooling head.

    Args:
        model: folder or Hub name.
        options: of the run.
    """
    if (find_base(model) / "modules.json").exists():
        return ()
    return (f"{options.pooling or 'mean'} pooling over token states: a model came without a pooling head",)


def make_searcher(
    model: str, texts: Sequence[str], seed: int, options: TaskOptions
) -> tuple[Searcher, tuple[str, ...]]:
    """The searcher that a name means, and notes on it.

    Args:
        model: folder, Hub name, "bm25" or "random".
        texts: of the products.
        seed: of draws.
        options: of the run.
    """
    if model == BM25:
        return LexicalSearcher(texts), ()
    if model == RANDOM:
        return RandomSearcher(len(texts), seed), ()
    made, notes = biencoder(model, options)
    return DenseSearcher(made, texts, options.batch_size), notes
