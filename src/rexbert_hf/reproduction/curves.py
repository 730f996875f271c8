"""Learning curves of the rows: measures on their checkpoints, and a plot of them by scheme (E-BERT's figure 7).

Checkpoints are there anyway, so a curve costs its measures and nothing in training. It starts at the model that the
rows share, where that one is measured.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.reproduction.jobs import Job
from rexbert_hf.reproduction.settings import ReproductionSettings
from rexbert_hf.reproduction.stages import Stage
from rexbert_hf.training.checkpoint import checkpoint_folders, last_complete_checkpoint

logger = logging.getLogger(__name__)

Point = dict[str, float]
_LOGGED = ("step", "alpha", "eta_w", "eta_p", "word_share")


def has_curve(settings: ReproductionSettings, stage: Stage, seed: int) -> bool:
    """Whether the checkpoints of a stage are measured with this seed."""
    curves = settings.curves
    trained = stage.row and not stage.shared and stage.recipe is None
    return curves is not None and trained and seed in settings.seeds[: curves.seeds]


def keep_checkpoints(recipe: PretrainSettings, points: int) -> PretrainSettings:
    """The recipe with evenly spaced checkpoints, all of them kept until they are measured.

    Args:
        recipe: with its scale.
        points: how many.
    """
    steps = sum((phase.max_tokens or 0) * recipe.scale / phase.batch_tokens for phase in recipe.phases)
    trainer = dataclasses.replace(
        recipe.trainer, save_steps=max(1, math.ceil(steps / points)), save_total_limit=points + len(recipe.phases)
    )
    return dataclasses.replace(recipe, trainer=trainer)


def measure_curve(job: Job, measure: Callable[[Job], dict[str, float]]) -> list[Point]:
    """Measure each checkpoint of a run, in order.

    Args:
        job: a finished run with its checkpoints.
        measure: what is measured.

    Returns:
        A mapping a checkpoint: `step` and the values.
    """
    points: list[Point] = []
    for folder in sorted(checkpoint_folders(job.folder), key=_step):
        at = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, output_dir=str(folder)))
        points.append({"step": _step(folder), **measure(at)})
    return points


def logged_losses(folder: Path) -> list[Point]:
    """Training loss by step as a run logged it; other losses and the state of the adaptive switch beside it."""
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint is None:
        return []
    history = json.loads((checkpoint.path / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    kept = [
        {key: value for key, value in entry.items() if key in _LOGGED or "loss" in key}
        for entry in history
        if "loss" in entry
    ]
    return [{key: value for key, value in entry.items() if isinstance(value, int | float)} for entry in kept]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def mean_curve(by_seed: Mapping[int, list[Point]], value: str) -> tuple[list[float], list[float]]:
    """Steps and mean values over the seeds that have them.

    Args:
        by_seed: points by seed.
        value: which value.

    Example:
        >>> mean_curve({0: [{"step": 1, "a": 2.0}, {"step": 2, "a": 3.0}], 1: [{"step": 1, "a": 4.0}]}, "a")
        ([1, 2], [3.0, 3.0])
    """
    at: dict[float, list[float]] = {}
    for points in by_seed.values():
        for point in points:
            if value in point:
                at.setdefault(point["step"], []).append(point[value])
    steps = sorted(at)
    return steps, [fmean(at[step]) for step in steps]


def draw_curves(
    settings: ReproductionSettings, curves: Mapping[str, Mapping[int, list[Point]]], path: Path
) -> Path | None:
    """Draw a panel for each value of `settings.curves`, a line for each row.

    Args:
        settings: the reproduction.
        curves: points by row and seed.
        path: the PNG to write.

    Returns:
        The path, or None where there is nothing to draw or no matplotlib.
    """
    if settings.curves is None or not any(points for found in curves.values() for points in found.values()):
        return None
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        logger.warning("matplotlib is not installed: no plot of the learning curves (pip install matplotlib)")
        return None
    labels = {row.name: row.label or row.name for row in settings.stages}
    values = settings.curves.values
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(
            1, len(values), figsize=(4.6 * len(values) + 1.6, 3.6), dpi=110, layout="constrained", squeeze=False
        )
        for panel, (value, title) in zip(axes[0], values.items(), strict=True):
            for row, by_seed in curves.items():
                steps, heights = mean_curve(by_seed, value)
                panel.plot(steps, heights, marker=".", linewidth=1.2, label=labels[row])
            panel.set(title=title, xlabel="steps after the shared start")
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
        figure.savefig(path)
        pyplot.close(figure)
    return path


def gather(
    settings: ReproductionSettings, read: Callable[[Stage, int], Any]
) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Curves of all rows that have one, each with the shared start as step 0 where it is measured.

    Args:
        settings: the reproduction.
        read: `(stage, seed) -> what its result file holds`, an empty mapping where there is none.
    """
    by_name = {stage.name: stage for stage in settings.stages}
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for stage in settings.chosen_rows():
        for seed in settings.seeds:
            points = read(stage, seed).get("curve")
            if not points:
                continue
            start = read(by_name[stage.after], seed).get("values") if stage.after is not None else None
            first = [{"step": 0, **{key: start[key] for key in points[0] if key in start}}] if start else []
            found.setdefault(stage.name, {})[seed] = [*first, *points]
    return found
