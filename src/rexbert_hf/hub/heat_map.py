"""Heat maps with words on both sides, as PNG; matplotlib is needed, and no display."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class HeatMap(NamedTuple):
    """One panel.

    Attributes:
        values: float `[N, M]`, each row drawn against its own largest value.
        rows: N labels.
        columns: M labels.
        title: above the panel.
    """

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    title: str


def heat_maps(panels: Sequence[HeatMap], path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Draw panels side by side; the darker, the stronger.

    Args:
        panels: at least one.
        path: the PNG to write.
        title: above all of them.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("matplotlib is not installed, which draws: pip install matplotlib") from None
    sizes = [(0.36 * len(panel.columns) + 1.8, 0.3 * len(panel.rows) + 1.6) for panel in panels]
    shape = (max(4.0, sum(width for width, _ in sizes)), max(2.6, max(height for _, height in sizes)))
    with pyplot.rc_context({"font.size": 8}):
        ratios = [width for width, _ in sizes]
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=shape, dpi=130, layout="constrained", squeeze=False, width_ratios=ratios
        )
        try:
            for panel, place in zip(panels, axes[0], strict=True):
                _draw(place, panel)
            if title:
                figure.suptitle(title, fontsize=9)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)
    return Path(path)


def _draw(axes: Any, panel: HeatMap) -> None:
    largest = np.maximum(panel.values.max(axis=1, keepdims=True), 1e-12)
    axes.imshow(panel.values / largest, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    axes.set_xticks(range(len(panel.columns)), labels=panel.columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(panel.rows)), labels=panel.rows)
    axes.set_title(panel.title, fontsize=8)
    axes.tick_params(which="both", length=0)
    axes.set_xticks(np.arange(-0.5, len(panel.columns)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(panel.rows)), minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    for side in axes.spines.values():
        side.set_visible(False)
    for i, row in enumerate(panel.values):
        best = int(row.argmax())
        axes.text(best, i, f"{100 * row[best]:.0f}", ha="center", va="center", fontsize=6, color="white")
