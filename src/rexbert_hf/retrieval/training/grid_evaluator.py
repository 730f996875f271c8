"""Search quality of each cell of a grid; all texts are encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from rexbert_hf.retrieval.training.evaluator import DEPTH, SearchEvaluator, search_metrics
from rexbert_hf.retrieval.training.exact_search import exact_top_k
from rexbert_hf.retrieval.training.grid_encoder import encode_grid

Cell = tuple[int, int]


def cell_name(cell: Cell) -> str:
    """What a cell is called in tables and logs: layers x dimensions.

    Example:
        >>> cell_name((5, 64))
        '5x64'
    """
    return f"{cell[0]}x{cell[1]}"


class GridEvaluator(SearchEvaluator):
    """R@100 (and the rest) of each cell of a bi-encoder; the best model is the one with the best mean over them.

    Figures without a cell's name are those of the largest one.

    Args:
        cells: (layers, dimensions); the last one is the largest.
        *args: of `SearchEvaluator`.
        **options: likewise.
    """

    def __init__(self, cells: Sequence[Cell], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cells = list(cells)
        self.primary_metric = f"{self.name}_mean_recall@100" if self.name else "mean_recall@100"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Means over the queries by name: of the largest cell, R@100 of each, and their mean."""
        found = {cell: means_of(values) for cell, values in self.by_cell(model).items()}
        recalls = {cell: means["recall@100"] for cell, means in found.items()}
        means = {**found[self.cells[-1]], "mean_recall@100": float(np.mean(list(recalls.values())))}
        means |= {f"{cell_name(cell)}_recall@100": recall for cell, recall in recalls.items()}
        return self.prefix_name_to_metrics(means, self.name)

    def by_cell(self, model: SentenceTransformer) -> dict[Cell, dict[str, np.ndarray]]:
        """All figures of each cell, one value a query.

        Args:
            model: the bi-encoder.
        """
        vectors = self.encoded(model)
        layers = sorted({depth for depth, _ in self.cells})
        found = {}
        for depth, dim in self.cells:
            queries, products = (unit(part[:, layers.index(depth), :dim]) for part in vectors)
            found[depth, dim] = self.figures(queries, products)
        return found

    def encoded(self, model: SentenceTransformer) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of queries and products after each layer of the grid, float32 `[N, L, H]`.

        Args:
            model: the bi-encoder.
        """
        layers = [depth for depth, _ in self.cells]
        queries = [self.data.queries[i] for i in self.queries]
        products = [self.data.texts[i] for i in self.products]
        return (
            encode_grid(model, queries, "query", layers, self.batch_size, self.bf16),
            encode_grid(model, products, "document", layers, self.batch_size, self.bf16),
        )

    def figures(self, queries: np.ndarray, products: np.ndarray) -> dict[str, np.ndarray]:
        """All figures of some vectors, one value a query.

        Args:
            queries: normalised, `[Q, D]`.
            products: likewise, `[P, D]`.
        """
        return search_metrics(exact_top_k(queries, products, DEPTH)[1], self.judged, self.data.relevant)


def means_of(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean of each figure over the queries that have one.

    Args:
        values: one value a query, by name.
    """
    return {name: float(np.nanmean(value)) for name, value in values.items()}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one, contiguous; zero vectors stay.

    Args:
        vectors: float32 `[N, D]`.

    Example:
        >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(length > 0, length, 1))
