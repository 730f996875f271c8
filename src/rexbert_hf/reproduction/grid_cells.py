"""Measures over a grid of layers x dimensions (m3BERT): masked accuracy and search quality of every cell, and maps.

Values are called `MEASURE.LAYERSxDIMS`; `mean` is that of all cells, `cut` that of all but the largest. A model need
not be trained over the grid: it is measured as it would be cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.reproduction.jobs import Job, load_job_model, measured_corpora
from rexbert_hf.reproduction.settings import ReproductionSettings
from rexbert_hf.retrieval.training.finetune import prepare_device
from rexbert_hf.retrieval.training.finetune_settings import SearchTrainerSettings
from rexbert_hf.retrieval.training.grid_encoder import shape_of
from rexbert_hf.retrieval.training.grid_evaluator import Cell, GridEvaluator, cell_name
from rexbert_hf.retrieval.training.grid_plot import plot_maps
from rexbert_hf.retrieval.training.grid_settings import make_grid, own_dim
from rexbert_hf.retrieval.training.search_data import TEST, SearchData, SearchDataSettings, load_search_data
from rexbert_hf.settings import from_dict, to_dict
from rexbert_hf.training.cell_accuracy import evaluate_cells

_CELL = re.compile(r"(\d+)x(\d+)")


def measure_masked_cells(
    job: Job, layers: Sequence[int], dims: Sequence[int], source: str = "shop", **options: Any
) -> dict[str, float]:
    """Masked accuracy of each cell on a source's held-out documents.

    Args:
        job: a finished pre-training run.
        layers: of the grid.
        dims: of the grid.
        source: which source.
        **options: of `evaluate_cells`.

    Raises:
        ValueError: if the source has no held-out documents, or the model is no RexBERT.
    """
    held_out = measured_corpora(job)[source].held_out
    model, tokenizer = load_job_model(job)
    if held_out is None or not isinstance(model, RexBertForMaskedLM):
        raise ValueError(f"masked_cells needs a RexBERT, and held-out documents of '{source}': see evaluation.held_out")
    shape = model.config.num_hidden_layers, model.config.hidden_size
    cells = make_grid([(depth, dim) for depth in layers for dim in dims], None, shape).cells
    return named(evaluate_cells(model, held_out, tokenizer, cells, **options))


def measure_search_cells(
    job: Job,
    layers: Sequence[int] | None = None,
    dims: Sequence[int] | None = None,
    metric: str = "recall@100",
    max_queries: int | None = None,
    max_products: int | None = None,
    batch_size: int = 128,
) -> dict[str, float]:
    """Search quality of each cell of a row's bi-encoder on the test queries of its own recipe's data.

    Args:
        job: a finished fine-tuning.
        layers: of the grid; None is what the model has.
        dims: of the grid; None is what the model has.
        metric: which figure.
        max_queries: test queries, drawn once; None for all.
        max_products: size of the part of the catalogue; None for all of it.
        batch_size: texts of one forward pass.

    Raises:
        ValueError: if the stage is no downstream stage.
    """
    if job.downstream is None:
        raise ValueError(f"stage '{job.stage.name}' trains no bi-encoder: give measure 'search_cells' the rows that do")
    prepare_device(SearchTrainerSettings(use_cpu=job.recipe.trainer.use_cpu))
    data = _data(json.dumps(to_dict(job.downstream.data), sort_keys=True))
    model = SentenceTransformer(str(job.folder), device="cpu" if job.recipe.trainer.use_cpu else None)
    shape = shape_of(model)
    depths, widths = layers or [shape[0]], dims or [own_dim(model) or shape[1]]
    cells = make_grid([(depth, dim) for depth in depths for dim in widths], None, shape).cells
    queries = data.of(TEST)
    if max_queries is not None:
        queries = np.sort(np.random.default_rng(0).permutation(queries)[:max_queries])
    evaluator = GridEvaluator(cells, data, queries, max_products, batch_size)
    found = {cell: float(np.nanmean(values[metric])) for cell, values in evaluator.by_cell(model).items()}
    return {**named(found), "queries": float(len(evaluator.queries)), "products": float(len(evaluator.products))}


@lru_cache(maxsize=1)  # all rows of a table search the same data
def _data(described: str) -> SearchData:
    return load_search_data(from_dict(SearchDataSettings, json.loads(described)))


def named(found: Mapping[Cell, float]) -> dict[str, float]:
    """Values by the names of their cells, with the means.

    Args:
        found: values by cell.

    Example:
        >>> named({(1, 8): 0.25, (2, 8): 0.5})
        {'1x8': 0.25, '2x8': 0.5, 'mean': 0.375, 'cut': 0.25}
    """
    largest = max(found, key=lambda cell: (cell[1], cell[0]))
    rest = [value for cell, value in found.items() if cell != largest]
    values = {cell_name(cell): value for cell, value in found.items()}
    return {**values, "mean": fmean(found.values()), "cut": fmean(rest or found.values())}


def draw_cell_maps(
    settings: ReproductionSettings, rows: Mapping[str, Mapping[int, Mapping[str, Any]]], folder: Path
) -> list[str]:
    """Draw `MEASURE_cells.png` for each measure with values by cell: a map for each row, means over seeds, in percent.

    A row with one cell has no map.

    Args:
        settings: the reproduction.
        rows: values by row and seed.
        folder: where the files go.

    Returns:
        The names of the files.
    """
    drawn = []
    for measure in settings.measures:
        maps: dict[str, dict[Cell, float]] = {}
        for row in settings.chosen_rows():
            found = _cells_of(measure.name, list(rows.get(row.name, {}).values()))
            if len(found) > 1:
                maps[row.label or row.name] = found
        path = folder / f"{measure.name}_cells.png"
        if maps and plot_maps(maps, path, f"{measure.name}, %, means over seeds") is not None:
            drawn.append(path.name)
    return drawn


def _cells_of(measure: str, seeds: Sequence[Mapping[str, Any]]) -> dict[Cell, float]:
    """Means over the seeds that have them."""
    values: dict[Cell, list[float]] = {}
    for found in seeds:
        for key, value in found.items():
            match = _CELL.fullmatch(key.removeprefix(f"{measure}."))
            if key.startswith(f"{measure}.") and match:
                values.setdefault((int(match[1]), int(match[2])), []).append(value)
    return {cell: fmean(found) for cell, found in values.items()}
