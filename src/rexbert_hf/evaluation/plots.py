"""The plot of an evaluation: each task a line, each model a mark with its interval over test examples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.evaluation.comparing import mean_score, resampled
from rexbert_hf.evaluation.task import Task
from rexbert_hf.hub.plots import warn_once

logger = logging.getLogger(__name__)

COLORS = ("#1f4e79", "#c05a00", "#3a7d44", "#7b3f9e", "#8a6d1b", "#b03050", "#4f7f8f", "#555555")
INTERVAL_RESAMPLES = 1_000


def intervals(
    tasks: Sequence[Task],
    examples: Mapping[tuple[str, str], Sequence[np.ndarray]],
    cache_dir: Path | None = None,
    groups: Mapping[str, np.ndarray | None] | None = None,
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Primary figure of each (task, model), with the ends of its 95 % interval over test examples.

    Args:
        tasks: the tasks.
        examples: (task, model) -> statistics of the test examples of each seed.
        cache_dir: resampled scores that take long are kept there.
        groups: task -> what its test examples belong to.
    """
    groups = groups or {}
    named = {task.name: task for task in tasks}
    found = {}
    for (name, model), arrays in examples.items():
        scores = resampled(named[name], arrays, INTERVAL_RESAMPLES, cache_dir, groups.get(name))
        low, high = np.quantile(scores, [0.025, 0.975])
        found[name, model] = (mean_score(named[name], arrays), float(low), float(high))
    return found


def plot_figures(
    path: Path, titles: Mapping[str, str], models: Sequence[str], values: Mapping[tuple[str, str], Any]
) -> Path | None:
    """Draw the primary figures; None without matplotlib or without figures.

    Args:
        path: the PNG.
        titles: task name -> title, in the order of lines.
        models: in the order of the legend.
        values: (task, model) -> mean, low and high end.
    """
    rows = [name for name in titles if any((name, model) in values for model in models)]
    if not rows:
        return None
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        warn_once("missing", "matplotlib is not installed: the report goes without a plot (pip install matplotlib)")
        return None
    with pyplot.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(figsize=(6.4, 1.0 + 0.34 * len(rows)), dpi=100, layout="constrained")
        step = 0.6 / max(1, len(models))
        for i, model in enumerate(models):
            places = [j for j, name in enumerate(rows) if (name, model) in values]
            found = np.array([values[rows[j], model] for j in places])
            if not len(found):
                continue
            heights = [-j + 0.3 - step * (i + 0.5) for j in places]
            # Rounding may put an end on the wrong side of the mean by a hair.
            errors = np.maximum(0, [found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]])
            color = COLORS[i % len(COLORS)]
            axes.errorbar(found[:, 0], heights, xerr=errors, fmt="o", ms=3, lw=1, color=color, label=model)
        axes.set_yticks([-j for j in range(len(rows))], [titles[name] for name in rows])
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        axes.set_xlabel("primary figure, 95 % interval over test examples")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        pyplot.close(figure)
    return path
