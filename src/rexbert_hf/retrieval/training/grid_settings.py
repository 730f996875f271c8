"""Which cells of layers x dimensions a bi-encoder is fine-tuned over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sentence_transformers import SentenceTransformer

from rexbert_hf.models import RexBertConfig, RexBertModel
from rexbert_hf.models.configuration_rexbert import check_weights, nearest_cell
from rexbert_hf.models.matryoshka_rexbert import Grid, check_whole
from rexbert_hf.retrieval.training.grid_encoder import parts_of, shape_of

logger = logging.getLogger(__name__)

Cell = tuple[int, int]


@dataclass
class GridSettings:
    """Fine-tune sub-models together: a loss for each cell, from one forward pass.

    Attributes:
        layers: after which layers; None: those that the base was pre-trained over, or the last.
        dims: over how many first dimensions; None: likewise, or all.
        cells: pairs (layers, dimensions) in place of layers x dims, as Starbucks' diagonal.
        weights: of each cell, 1 by default: all dims of the first of the layers, then of the next; or as in cells.
        sample: train the largest cell and so many less one of the others in a step (2 or more), weighted so that the
            expectation is the whole sum; 0: all.
        way: grid, or sentence-transformers' own Matryoshka2dLoss (one random layer and one random dimension a step,
            with its own in-batch softmax, and without weights and sample), to compare with. It draws from all layers:
            the cells are then those that are measured, and noted, of more that it trains.
    """

    layers: list[int] | None = None
    dims: list[int] | None = None
    cells: list[list[int]] | None = None
    weights: list[float] | None = None
    sample: int = 0
    way: Literal["grid", "matryoshka2d"] = "grid"

    def __post_init__(self) -> None:
        if self.cells is not None and (self.layers is not None or self.dims is not None):
            raise ValueError("matryoshka: cells stand in place of layers and dims; set one or the other")
        if any(len(cell) != 2 for cell in self.cells or []):
            raise ValueError(f"matryoshka.cells are pairs (layers, dimensions); got {self.cells}")
        try:
            check_weights([*(self.weights or [])], self.sample)
        except ValueError as error:
            raise ValueError(f"matryoshka: {error}") from None

    def grid(self, model: SentenceTransformer) -> Grid:
        """The cells of a model, the largest one last.

        Args:
            model: the bi-encoder.

        Raises:
            ValueError: for a cell that the model does not have, one that is named twice, or weights that do not fit.
        """
        cells = self._cells(model)
        if self.weights is not None and len(self.weights) != len(cells):
            raise ValueError(f"{len(self.weights)} matryoshka.weights for {len(cells)} cells")
        return make_grid(cells, self.weights, shape_of(model))

    def _cells(self, model: SentenceTransformer) -> list[Cell]:
        if self.cells is not None:
            return [(layers, dim) for layers, dim in self.cells]
        trained = trained_cells(model)
        if self.layers is None and self.dims is None and not trained:
            raise ValueError("the base was not trained over a grid: name matryoshka.layers and matryoshka.dims")
        depth, width = shape_of(model)
        layers = self.layers or sorted({cell[0] for cell in trained}) or [depth]
        dims = self.dims or sorted({cell[1] for cell in trained}) or [width]
        if self.layers is None and self.dims is None:
            return trained
        return [(depth, dim) for depth in layers for dim in dims]


def make_grid(cells: Sequence[Cell], weights: Sequence[float] | None, shape: Cell) -> Grid:
    """Check cells and put the largest last.

    Args:
        cells: (layers, dimensions).
        weights: of each; None for 1 each.
        shape: layers and width of the model.

    Raises:
        ValueError: for a cell that the model does not have, or one that is named twice.

    Example:
        >>> make_grid([(2, 8), (1, 8), (1, 4)], None, (2, 8)).cells
        ((1, 4), (1, 8), (2, 8))
    """
    for layers, dim in cells:
        if not (1 <= layers <= shape[0] and 1 <= dim <= shape[1]):
            raise ValueError(
                f"cell of {layers} layers x {dim} dimensions: the model has {shape[0]} layers and {shape[1]} dimensions"
            )
    if not cells or len(set(cells)) < len(cells):
        raise ValueError(f"a grid has one or more different cells; got {list(cells)}")
    order = sorted(range(len(cells)), key=lambda i: (cells[i][1], cells[i][0]))
    chosen = [1.0] * len(cells) if weights is None else weights
    return Grid(tuple(cells[i] for i in order), tuple(float(chosen[i]) for i in order))


def trained_cells(model: SentenceTransformer) -> list[Cell]:
    """The cells that a bi-encoder, or the encoder in it, was trained over; none for a plain one.

    Args:
        model: the bi-encoder.
    """
    return cells_of(parts_of(model)[0].model.config)


def cells_of(config: Any) -> list[Cell]:
    """The cells that an encoder's configuration names: a RexBERT's grid, or what `note_cells` wrote into another's.

    Args:
        config: of any architecture; None has none.
    """
    if hasattr(config, "matryoshka_grid"):
        found: list[Cell] = config.matryoshka_grid()
        return found
    return [(int(layers), int(dim)) for layers, dim in getattr(config, "matryoshka_cells", None) or []]


def is_stale(model: SentenceTransformer) -> bool:
    """Whether the cells that a bi-encoder names are those of pre-training only.

    Args:
        model: the bi-encoder.
    """
    return bool(getattr(parts_of(model)[0].model.config, "matryoshka_stale", False))


def note_cells(model: SentenceTransformer, grid: Grid) -> None:
    """Write into the encoders' configurations which cells are trained, so that sub-models know their neighbours.

    Args:
        model: the bi-encoder; of one whose base was trained over other cells the new ones are told with the nearest.
        grid: what it is fine-tuned over.
    """
    before = trained_cells(model)
    for layers, dim in grid.cells if before else ():
        if (layers, dim) not in before:
            near = nearest_cell(before, layers, dim)
            logger.warning(
                "%d layers x %d dimensions was not trained before; the nearest that was is %d x %d", layers, dim, *near
            )
    for task in ("query", "document"):
        config: Any = parts_of(model, task)[0].model.config
        config.matryoshka_cells = [list(cell) for cell in grid.cells]
        for name in ("layers", "dims", "weights"):
            setattr(config, f"matryoshka_{name}", None)
        config.matryoshka_sample, config.matryoshka_stale = 0, False
        if isinstance(config, RexBertConfig):
            config.truncate_dim = None  # of a base that was cut: its cells say now what may be read


def leave_cells(model: SentenceTransformer) -> None:
    """Write into the encoders' configurations that their cells are not those of the training that now begins.

    Args:
        model: any bi-encoder.
    """
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if cells_of(config):
            config.matryoshka_stale = True


def own_dim(model: SentenceTransformer) -> int | None:
    """The dimensions that a bi-encoder, or the encoder in it, was cut to; None for a whole one.

    Args:
        model: the bi-encoder.
    """
    if model.truncate_dim is not None:
        return int(model.truncate_dim)
    found = [module.config.truncate_dim for module in model.modules() if isinstance(module, RexBertModel)]
    return next((dim for dim in found if dim is not None), None)


def fine_tuning_grid(settings: GridSettings | None, model: SentenceTransformer) -> Grid | None:
    """The grid of a fine-tuning run; of an encoder that was cut to fewer dimensions the one cell that it is.

    Args:
        settings: of the recipe; None for a plain run.
        model: the bi-encoder; its configuration takes note, also of cells that a plain run leaves behind.

    Raises:
        ValueError: as `GridSettings.grid`, and if the whole model is not among the cells.
    """
    if settings is not None:
        grid = settings.grid(model)
        check_whole(grid.cells, shape_of(model))
        note_cells(model, grid)
        model.truncate_dim = None  # of a base that was cut; the whole model is one of the cells
        return grid
    leave_cells(model)
    model.truncate_dim = dim = own_dim(model)
    return None if dim is None else make_grid([(shape_of(model)[0], dim)], None, shape_of(model))
