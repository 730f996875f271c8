"""All curves of a run from its logged history: loss, accuracy, and how adaptive masking went.

The history is that of the newest `trainer_state.json` in the run's folder, so a run in progress can be drawn too, and
one of the stock Trainer as well. Panels without data are left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .plots import ACCURACY_COLOR, LOSS_COLOR, draw_phases, points, smooth
from .run_file import RUN_FILE, read_run

STATE_FILE = "trainer_state.json"
_GREYS = ("#555555", "#888888", "#2e7d32", "#7b1fa2")


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        name: of the value in the history.
        label: in the legend.
        color: of the line.
        dots: draw the points alone, for few readings.
    """

    name: str
    label: str
    color: str
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves over one axis.

    Attributes:
        title: of its vertical axis.
        curves: those that the history has are drawn.
        limits: of the vertical axis; None follows the data.
        is_log: draw a logarithmic axis with a linear stretch at zero.
    """

    title: str
    curves: tuple[Curve, ...]
    limits: tuple[float, float] | None = None
    is_log: bool = False


def read_history(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The log records of a run, from the checkpoint with the most steps.

    Args:
        folder: the run's output folder, or one checkpoint.

    Raises:
        FileNotFoundError: if there is no `trainer_state.json` in it or in a checkpoint below it.
        ValueError: if none can be read.
    """
    root = Path(folder)
    files = [root / STATE_FILE, *root.glob(f"checkpoint-*/{STATE_FILE}")]
    files = [path for path in files if path.is_file()]
    if not files:
        raise FileNotFoundError(f"{root}: no {STATE_FILE} here or in a checkpoint-*: give the folder of a run")
    states = []
    for path in files:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            states.append((int(state["global_step"]), list(state["log_history"])))
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{path}: not a trainer's state ({type(error).__name__}): remove the damaged checkpoint"
    if not states:
        raise ValueError(problem)
    return max(states, key=lambda state: state[0])[1]


def read_phases(folder: str | os.PathLike[str], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Phases with `name` and `steps`: the steps from the records, the names from `run.json` where there is one.

    Args:
        folder: the run's output folder.
        history: log records; those of the training loss say their phase's index.

    Example:
        >>> read_phases("nowhere", [{"loss": 3.0, "step": 10, "phase": 0}, {"loss": 2.0, "step": 30, "phase": 1}])
        [{'name': 'phase 1', 'steps': 10}, {'name': 'phase 2', 'steps': 20}]
    """
    last: dict[int, int] = {}
    for entry in history:
        if "phase" in entry and "loss" in entry:
            last[int(entry["phase"])] = int(entry["step"])
    names: list[str] = []
    if (Path(folder) / RUN_FILE).is_file():
        config = read_run(folder).get("config") or {}
        names = [str(phase.get("name")) for phase in config.get("phases") or []]
    ends = [0, *last.values()]
    return [
        {"name": names[index] if index < len(names) else f"phase {index + 1}", "steps": end - start}
        for index, start, end in zip(last, ends, ends[1:], strict=False)
    ]


def panels_of(history: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """The panels that a history can fill.

    Args:
        history: log records.

    Example:
        >>> [panel.title for panel in panels_of([{"step": 1, "loss": 2.0, "alpha": 0.8}])]
        ['training loss', 'word mode']
    """
    names = {name for entry in history for name in entry}
    held_out = sorted(
        name for name in names if name.startswith("eval_") and name.endswith("accuracy") and name != "eval_accuracy"
    )
    parts = sorted(name for name in names if name.startswith("loss_") and name not in ("loss_word", "loss_phrase"))
    colors = (*_GREYS, *_GREYS)
    panels = [
        Panel("training loss", (Curve("loss", "loss", LOSS_COLOR),)),
        Panel(
            "masked accuracy",
            (
                Curve("masked_accuracy", "training", LOSS_COLOR),
                Curve("eval_accuracy", "held-out", ACCURACY_COLOR, dots=True),
                *(
                    Curve(name, f"held-out {name[5:].removesuffix('_accuracy')}", color, dots=True)
                    for name, color in zip(held_out, colors, strict=False)
                ),
            ),
        ),
        Panel(
            "word mode",
            (Curve("alpha", "alpha", LOSS_COLOR), Curve("word_share", "share of word steps", ACCURACY_COLOR)),
            (-0.03, 1.03),
        ),
        Panel(
            "fitting index",
            (Curve("eta_w", "words", LOSS_COLOR), Curve("eta_p", "phrases", ACCURACY_COLOR)),
            is_log=True,
        ),
        Panel(
            "loss by mode",
            (Curve("loss_word", "words", LOSS_COLOR), Curve("loss_phrase", "phrases", ACCURACY_COLOR)),
        ),
        *(Panel(name[5:] + " loss", (Curve(name, name[5:], LOSS_COLOR),)) for name in parts),
    ]
    return [panel for panel in panels if any(points(history, "step", curve.name) for curve in panel.curves)]


def run_plot(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    phases: Sequence[Mapping[str, Any]] | None = None,
    title: str | None = None,
) -> list[str]:
    """Draw all curves of a run over its steps as a PNG.

    Args:
        history: log records.
        path: the PNG to write.
        phases: mappings with `name` and `steps`, one after the other.
        title: a line above.

    Returns:
        Titles of the panels drawn.

    Raises:
        ValueError: if the history holds no training loss.
        ImportError: if matplotlib is missing.
    """
    panels = panels_of(history)
    if not points(history, "step", "loss"):
        raise ValueError("the history holds no training loss yet: wait for the first log record")
    try:
        import matplotlib

        matplotlib.use("Agg")  # no display is needed, nor looked for
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plots need matplotlib: pip install matplotlib") from None
    end = max(x for x, _ in points(history, "step", "loss"))
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, grid = pyplot.subplots(
            len(panels), figsize=(8, 1.9 * len(panels) + 0.6), dpi=110, sharex=True, layout="constrained", squeeze=False
        )
        try:
            named = list(phases or ())
            for axes, panel in zip(grid[:, 0], panels, strict=True):
                _draw(axes, panel, history)
                axes.set_xlim(0, 1.01 * end)
                draw_phases(axes, named, "step", end)
                named = [{**phase, "name": ""} for phase in named]  # the first panel says them for all
            grid[-1, 0].set_xlabel("training steps")
            if title:
                figure.suptitle(title, fontsize=10)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)
    return [panel.title for panel in panels]


def _draw(axes: Any, panel: Panel, history: Sequence[Mapping[str, Any]]) -> None:
    values: list[float] = []
    for curve in panel.curves:
        found = points(history, "step", curve.name)
        if not found:
            continue
        xs, ys = zip(*found, strict=True)
        values += ys
        if curve.dots or len(ys) < 40:
            axes.plot(xs, ys, color=curve.color, linewidth=1.2, marker="o", markersize=3, label=curve.label)
            continue
        axes.plot(xs, ys, color=curve.color, linewidth=0.5, alpha=0.25)
        axes.plot(xs, smooth(ys, max(5, len(ys) // 25)), color=curve.color, linewidth=1.5, label=curve.label)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    positive = sorted(value for value in values if value > 0)
    if panel.is_log and positive:
        axes.set_yscale("symlog", linthresh=positive[len(positive) // 20])
        axes.set_ylim(0, 1.5 * positive[-1])
    axes.set_ylabel(panel.title)
    axes.grid(axis="y", color="#d0d4da", linewidth=0.5)
    axes.set_axisbelow(True)
    if len(panel.curves) > 1:
        axes.legend(loc="best", fontsize=8, frameon=False, ncols=2)
