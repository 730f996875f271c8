"""What each cell of a bi-encoder costs and finds on this machine: latency of a query, memory, search quality.

Dimensions cost no time in the encoder, so latency is measured once for each number of layers; all texts are encoded
once for all cells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.retrieval.serving.latency import Latency, measure_latency
from rexbert_hf.retrieval.serving.query_model import encode
from rexbert_hf.retrieval.training.grid_evaluator import Cell, GridEvaluator, cell_name, means_of, unit
from rexbert_hf.retrieval.training.grid_submodel import cut_biencoder

logger = logging.getLogger(__name__)

Runtime = Literal["torch", "fp32", "int8"]
"""What answers queries: torch, or an exported graph of that precision."""


class NoCellFitsError(ValueError):
    """No cell meets the budget.

    Attributes:
        results: what was measured, where a whole run ends so.
    """

    results: dict[str, Any]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.results = {}


@dataclass(frozen=True)
class CellFigures:
    """One cell as measured.

    Attributes:
        layers: that are kept.
        dim: dimensions that are kept.
        p50: milliseconds of one query, median; tokenising included, searching not.
        p99: 99th percentile.
        model_bytes: weights, or the exported graph.
        vector_bytes: float32 vectors of the products with text, which an index holds.
        quality: figures by name.
    """

    layers: int
    dim: int
    p50: float
    p99: float
    model_bytes: int
    vector_bytes: int
    quality: dict[str, float]

    @property
    def name(self) -> str:
        """Layers x dimensions."""
        return cell_name((self.layers, self.dim))

    @property
    def bytes(self) -> int:
        """Of model and vectors."""
        return self.model_bytes + self.vector_bytes


@dataclass(frozen=True)
class _Depth:
    """A model cut to some layers, as it is served: its latency, its size, its vectors of the queries."""

    latency: Latency
    size: int
    queries: np.ndarray | None


def measure_cells(
    model: SentenceTransformer,
    cells: Sequence[Cell],
    evaluator: GridEvaluator,
    runtime: Runtime = "torch",
    repeats: int = 200,
    threads: int = 1,
    fused: bool = True,
) -> list[CellFigures]:
    """Measure cells, in their order.

    Args:
        model: the bi-encoder.
        cells: (layers, dimensions).
        evaluator: of these cells; its queries are what is timed.
        runtime: what answers queries; products are encoded by torch, as an index holds them.
        repeats: queries timed for each number of layers.
        threads: of torch or of onnxruntime.
        fused: of an exported graph, see `export_onnx`.
    """
    layers = sorted({depth for depth, _ in cells})
    texts = [evaluator.data.queries[i] for i in evaluator.queries]
    queries, products = evaluator.encoded(model)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # The widest trained cell of each depth stands for all of it.
        widest = {depth: max(dim for other, dim in cells if other == depth) for depth in layers}
        measured = partial(_depth, texts=texts, runtime=runtime, repeats=repeats, threads=threads, fused=fused)
        depths = {depth: measured(model, (depth, widest[depth])) for depth in layers}
    finally:
        torch.set_num_threads(before)
    found = []
    for depth, dim in cells:
        served, place = depths[depth], layers.index(depth)
        asked = queries[:, place] if served.queries is None else served.queries
        means = means_of(evaluator.figures(unit(asked[:, :dim]), unit(products[:, place, :dim])))
        vector_bytes = 4 * dim * int(evaluator.data.described.sum())
        times = served.latency.p50, served.latency.p99
        found.append(CellFigures(depth, dim, *times, served.size, vector_bytes, means))
    return found


def _depth(
    model: SentenceTransformer,
    cell: Cell,
    texts: list[str],
    runtime: Runtime,
    repeats: int,
    threads: int,
    fused: bool,
) -> _Depth:
    cut = cut_biencoder(model, *cell).eval()
    cut.truncate_dim = None  # vectors are cut afterwards, to each of the dimensions
    if runtime == "torch":
        size = sum(parameter.numel() * parameter.element_size() for parameter in cut.parameters())
        return _Depth(measure_latency(_one(lambda part: encode(cut, part, "query")), texts, repeats), size, None)
    from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
    from rexbert_hf.retrieval.serving.onnx_export import GRAPHS, export_onnx

    with temporary_folder() as folder:
        export_onnx(cut, folder, (runtime,), texts=texts[:64], fused=fused)
        encoder = OnnxEncoder(folder, runtime, threads=threads)
        latency = measure_latency(_one(encoder.encode_query), texts, repeats)
        return _Depth(latency, (Path(folder) / GRAPHS[runtime]).stat().st_size, encoder.encode_query(texts))


def _one(call: Callable[[list[str]], Any]) -> Callable[[str], Any]:
    return lambda text: call([text])


def choose_cell(
    cells: Sequence[CellFigures],
    metric: str,
    latency_ms: float | None = None,
    memory_mb: float | None = None,
    percentile: Literal["p50", "p99"] = "p50",
) -> CellFigures:
    """The best cell within a budget; of equally good ones that of fewest layers, then the smallest.

    Fewer layers are faster, and measured milliseconds of equal ones would let chance choose.

    Args:
        cells: measured.
        metric: what is best.
        latency_ms: most milliseconds of a query; None for any.
        memory_mb: most megabytes of model and vectors; None for any.
        percentile: of the latency.

    Raises:
        NoCellFitsError: if no cell meets the budget, with the one that is nearest.
        ValueError: for an unknown metric.

    Example:
        >>> small = CellFigures(1, 8, 0.5, 0.9, 100, 10, {"recall@100": 0.4})
        >>> large = CellFigures(2, 16, 1.5, 1.9, 200, 20, {"recall@100": 0.5})
        >>> choose_cell([small, large], "recall@100", latency_ms=1.0).name
        '1x8'
    """
    check_metric(metric, cells[0].quality)
    fast = [cell for cell in cells if latency_ms is None or getattr(cell, percentile) <= latency_ms]
    if not fast:
        best = min(cells, key=lambda cell: (getattr(cell, percentile), cell.bytes))
        raise NoCellFitsError(
            f"no cell answers a query within {latency_ms:g} ms ({percentile}): the fastest, {best.name} (layers x"
            f" dimensions), takes {getattr(best, percentile):.2f} ms"
        )
    small = [cell for cell in fast if memory_mb is None or cell.bytes <= memory_mb * 1e6]
    if not small:
        least = min(fast, key=lambda cell: cell.bytes)
        raise NoCellFitsError(
            f"no cell that is fast enough fits into {memory_mb:g} MB: the smallest, {least.name} (layers x dimensions),"
            f" takes {least.bytes / 1e6:.1f} MB with the vectors of the catalogue"
        )
    return min(small, key=lambda cell: (-cell.quality[metric], cell.layers, cell.bytes))


def check_metric(metric: str, known: Sequence[str] | dict[str, float]) -> None:
    """Refuse a metric that is not measured.

    Args:
        metric: its name.
        known: names.

    Raises:
        ValueError: with the names that there are.
    """
    if metric not in known:
        raise ValueError(f"no metric '{metric}': choose one of {', '.join(known)}")
