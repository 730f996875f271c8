"""Plots of the cells of a grid: quality against latency and memory, and maps of layers x dimensions, as PNG."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.hub.plots import ACCURACY_COLOR, LOSS_COLOR
from rexbert_hf.retrieval.training.grid_evaluator import Cell
from rexbert_hf.retrieval.training.grid_measure import CellFigures

logger = logging.getLogger(__name__)

PANELS_ACROSS = 4
"""Maps of layers x dimensions on one line: seven would be too small to read on a page."""


def _pyplot() -> Any:
    try:
        import matplotlib

        matplotlib.use("Agg")  # no display is needed, nor looked for
        from matplotlib import pyplot
    except ImportError:
        logger.warning("matplotlib is not installed: no plot of the cells (pip install matplotlib)")
        return None
    return pyplot


def plot_choice(
    cells: Sequence[CellFigures],
    chosen: CellFigures | None,
    path: str | os.PathLike[str],
    metric: str,
    percentile: str = "p50",
    latency_ms: float | None = None,
    memory_mb: float | None = None,
) -> Path | None:
    """Draw quality against latency and against memory, a line for each number of layers.

    Args:
        cells: measured.
        chosen: is circled; None circles nothing.
        path: the PNG to write.
        metric: what quality is.
        percentile: of the latency.
        latency_ms: drawn as a limit.
        memory_mb: likewise.

    Returns:
        The path, or None without matplotlib.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    sides = [
        (f"milliseconds a query ({percentile})", lambda cell: getattr(cell, percentile), latency_ms),
        ("megabytes, model and vectors", lambda cell: cell.bytes / 1e6, memory_mb),
    ]
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), dpi=110, layout="constrained", sharey=True)
        try:
            for panel, (label, cost, limit) in zip(axes, sides, strict=True):
                _draw_lines(panel, cells, metric, cost)
                if limit is not None:
                    panel.axvline(limit, color="#888888", linewidth=0.9, linestyle="--")
                if chosen is not None:
                    place = cost(chosen), chosen.quality[metric]
                    panel.plot(*place, "o", markersize=11, markerfacecolor="none", color=ACCURACY_COLOR)
                    panel.annotate(chosen.name, place, xytext=(7, -12), textcoords="offset points")
                panel.set(xlabel=label, ylabel=metric if panel is axes[0] else "")
                panel.grid(axis="y", color="#d0d4da", linewidth=0.5)
            handles, names = axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
            figure.savefig(path, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)
    return Path(path)


def _draw_lines(panel: Any, cells: Sequence[CellFigures], metric: str, cost: Any) -> None:
    depths = sorted({cell.layers for cell in cells})
    for i, depth in enumerate(depths):
        part = sorted((cell for cell in cells if cell.layers == depth), key=lambda cell: cell.dim)
        xs, ys = [cost(cell) for cell in part], [cell.quality[metric] for cell in part]
        shade = 0.25 + 0.75 * (i + 1) / len(depths)
        panel.plot(
            xs, ys, color=LOSS_COLOR, alpha=shade, linewidth=1.2, marker="o", markersize=3, label=f"{depth} layers"
        )


def plot_maps(
    maps: Mapping[str, Mapping[Cell, float]], path: str | os.PathLike[str], title: str | None = None, digits: int = 1
) -> Path | None:
    """Draw maps of layers x dimensions side by side, four a line, with their values in percent, on one scale.

    Args:
        maps: values by cell, by the title of the panel; cells that a map lacks stay white.
        path: the PNG to write.
        title: above all of them.
        digits: behind the point.

    Returns:
        The path, or None without matplotlib.
    """
    pyplot = _pyplot()
    if pyplot is None or not any(maps.values()):
        return None
    layers = sorted({depth for values in maps.values() for depth, _ in values})
    dims = sorted({dim for values in maps.values() for _, dim in values})
    tables = {name: 100 * _table(values, layers, dims) for name, values in maps.items()}
    low, high = np.nanmin(list(tables.values())), np.nanmax(list(tables.values()))
    with pyplot.rc_context({"font.size": 8}):
        across = min(len(maps), PANELS_ACROSS)
        down = math.ceil(len(maps) / across)
        size = (across * (0.55 * len(dims) + 0.7) + 0.6, down * (0.36 * len(layers) + 0.9) + 0.4)
        figure, axes = pyplot.subplots(
            down, across, figsize=size, dpi=130, layout="constrained", squeeze=False, sharey=True
        )
        try:
            for panel in axes.flat[len(maps) :]:
                panel.set_axis_off()
            for panel, (name, table) in zip(axes.flat[: len(maps)], tables.items(), strict=True):
                panel.imshow(
                    table, cmap="Blues", vmin=low - 0.3 * (high - low), vmax=high, aspect="auto", origin="lower"
                )
                panel.set_xticks(range(len(dims)), labels=dims)
                panel.set_yticks(range(len(layers)), labels=layers)
                panel.set_title(name, fontsize=8)
                panel.set(xlabel="dimensions", ylabel="layers" if panel in axes[:, 0] else "")
                panel.tick_params(which="both", length=0)
                for (i, j), value in np.ndenumerate(table):
                    if np.isfinite(value):
                        color = "white" if value > low + 0.6 * (high - low) else "black"
                        panel.text(j, i, f"{value:.{digits}f}", ha="center", va="center", fontsize=6.5, color=color)
            if title:
                figure.suptitle(title, fontsize=9)
            figure.savefig(path, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)
    return Path(path)


def _table(values: Mapping[Cell, float], layers: Sequence[int], dims: Sequence[int]) -> np.ndarray:
    return np.array([[values.get((depth, dim), np.nan) for dim in dims] for depth in layers])
