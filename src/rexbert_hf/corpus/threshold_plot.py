"""The plot of a threshold sweep: precision, recall and F1 with their bands, and where the threshold was set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.hub.plots import ACCURACY_COLOR, LOSS_COLOR, warn_once

from ..metrics.agreement import wilson_interval
from .thresholds import Sweep

F1_COLOR = "#4a7a3a"


def draw_sweep(found: Sweep, path: str | Path, chosen: float, title: str | None = None) -> Path | None:
    """Draw a sweep as a PNG or SVG, by the suffix.

    Args:
        found: the sweep.
        path: the file to write.
        chosen: the threshold that is used.
        title: a line above.

    Returns:
        The path, or None when matplotlib is missing; one warning says so.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")  # no display is needed, nor looked for
        from matplotlib import pyplot
    except ImportError:
        warn_once("missing", "matplotlib is not installed: the card goes without a plot (pip install matplotlib)")
        return None
    path = Path(path)
    # Without a fixed salt and date the same figure is another file every time.
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "sweep"}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(6.0, 3.6), dpi=110, layout="constrained")
        try:
            _draw(axes, found, chosen)
            if title:
                figure.suptitle(title, fontsize=10)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
        finally:
            pyplot.close(figure)
    return path


def _draw(axes: Any, found: Sweep, chosen: float) -> None:
    at = found.thresholds
    for name, values, color, trials in (
        ("precision", found.precision, LOSS_COLOR, found.kept),
        ("recall", found.recall, ACCURACY_COLOR, np.full(len(at), found.positives)),
    ):
        ends = [wilson_interval(int(s), int(n)) for s, n in zip(found.true_positives, trials, strict=True)]
        bands = np.array([[end.low, end.high] for end in ends])
        axes.fill_between(at, bands[:, 0], bands[:, 1], color=color, alpha=0.15, linewidth=0)
        axes.plot(at, values, color=color, linewidth=1.6, label=name)
    axes.plot(at, found.f1, color=F1_COLOR, linewidth=1.2, linestyle="--", label="F1")
    axes.axvline(chosen, color="#444444", linewidth=1, linestyle=":")
    axes.text(chosen, 0.02, f" {chosen:.2f}", color="#444444", va="bottom")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold", ylabel="share, 95 % bands")
    axes.grid(axis="y", color="#d0d4da", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", frameon=False)
