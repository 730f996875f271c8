"""The loss plot of a card: training loss over tokens, phases side by side, held-out masked accuracy on top.

matplotlib is not a requirement of the package: without it a card has no plot, and one warning says so.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LOSS_COLOR = "#1f4e79"
ACCURACY_COLOR = "#c05a00"
BANDS = ("#f3f5f8", "#e4e9f0")
_warned: set[str] = set()


def loss_plot(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    phases: Sequence[Mapping[str, Any]] | None = None,
    title: str | None = None,
) -> Path | None:
    """Draw the training loss and the held-out masked accuracy of a run as a PNG.

    Args:
        history: log entries in order, each with `tokens` or `step` and with `loss`, `masked_accuracy`, or both (the
            names with `eval_` in front are held-out readings too). Entries with neither are passed over.
        path: the PNG to write.
        phases: mappings with `name` and `tokens` or `steps`, one after the other.
        title: a line above the plot.

    Returns:
        The path, or None when matplotlib is missing or the history holds no loss.

    Example:
        >>> loss_plot([], "nothing_to_draw.png") is None
        True
    """
    axis = "tokens" if all("tokens" in entry for entry in history if points([entry], "step", "loss")) else "step"
    losses = points(history, axis, "loss")
    if not losses:
        warn_once("empty", "no loss in the history: the card goes without a plot")
        return None
    try:
        import matplotlib

        matplotlib.use("Agg")  # no display is needed, nor looked for
        from matplotlib import pyplot
    except ImportError:
        warn_once("missing", "matplotlib is not installed: the card goes without a plot (pip install matplotlib)")
        return None
    accuracy = points(history, axis, "eval_masked_accuracy") or points(history, axis, "masked_accuracy")
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(figsize=(7.2, 3.6), dpi=110, layout="constrained")
        try:
            _draw_loss(axes, losses, axis)
            draw_phases(axes, phases or (), axis, losses[-1][0])
            if accuracy:
                _draw_accuracy(axes, accuracy)
            if title:
                figure.suptitle(title, fontsize=10)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)
    return Path(path)


def points(history: Sequence[Mapping[str, Any]], axis: str, name: str) -> list[tuple[float, float]]:
    """The finite values of one name over one axis, from the entries that have both.

    Example:
        >>> points([{"step": 1, "loss": 2.5}, {"step": 2}], "step", "loss")
        [(1.0, 2.5)]
    """
    found = []
    for entry in history:
        x, y = entry.get(axis), entry.get(name)
        if isinstance(x, (int, float)) and isinstance(y, (int, float)) and math.isfinite(y):
            found.append((float(x), float(y)))
    return found


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Mean over `span` points centred on each, shorter at both ends so that the curve does not lag.

    Example:
        >>> smooth([0.0, 3.0, 0.0, 3.0], 3)
        [0.0, 1.0, 2.0, 3.0]
    """
    out = []
    for i in range(len(values)):
        reach = min(span // 2, i, len(values) - 1 - i)
        window = values[i - reach : i + reach + 1]
        out.append(sum(window) / len(window))
    return out


def _draw_loss(axes: Any, losses: Sequence[tuple[float, float]], axis: str) -> None:
    from matplotlib.ticker import EngFormatter

    xs, ys = zip(*losses, strict=True)
    if len(ys) < 40:
        axes.plot(xs, ys, color=LOSS_COLOR, linewidth=1.4, marker="o", markersize=2.5)
    else:
        axes.plot(xs, ys, color=LOSS_COLOR, linewidth=0.6, alpha=0.3)
        axes.plot(xs, smooth(ys, max(5, len(ys) // 25)), color=LOSS_COLOR, linewidth=1.6)
    # A first value of ln(vocabulary) would squeeze the part that one wants to see.
    upper = sorted(ys)[int(0.98 * (len(ys) - 1))] if len(ys) >= 40 else max(ys)
    room = 0.08 * max(upper - min(ys), 1e-3)
    axes.set_ylim(min(ys) - room, upper + 2 * room)
    axes.set_xlim(0, 1.01 * xs[-1])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("training tokens" if axis == "tokens" else "training steps")
    axes.set_ylabel("training loss (nats per masked token)", color=LOSS_COLOR)
    axes.tick_params(axis="y", colors=LOSS_COLOR)
    axes.grid(axis="y", color="#d0d4da", linewidth=0.5)
    axes.set_axisbelow(True)


def draw_phases(axes: Any, phases: Sequence[Mapping[str, Any]], axis: str, end: float) -> None:
    """Shade the phases and name those that are wide enough.

    Args:
        axes: of matplotlib.
        phases: mappings with `name` and `tokens` or `steps`, one after the other.
        axis: "tokens" or "step".
        end: last place of the axis.
    """
    start = 0.0
    for index, phase in enumerate(phases):
        width = phase.get("tokens" if axis == "tokens" else "steps")
        if not isinstance(width, (int, float)) or start >= end:
            return
        stop = min(start + width, end)
        axes.axvspan(start, stop, color=BANDS[index % 2], zorder=0, linewidth=0)
        if stop - start > 0.06 * end:
            position = ((start + stop) / 2, 0.985)
            name = str(phase.get("name", index + 1))
            axes.text(*position, name, transform=axes.get_xaxis_transform(), ha="center", va="top", color="#444444")
        start = stop


def _draw_accuracy(axes: Any, accuracy: Sequence[tuple[float, float]]) -> None:
    right = axes.twinx()
    xs, ys = zip(*accuracy, strict=True)
    right.plot(xs, [100 * y for y in ys], color=ACCURACY_COLOR, linewidth=1, linestyle="--", marker="s", markersize=4)
    right.set_ylim(0, max(5.0, 120 * max(ys)))
    right.set_ylabel("held-out masked accuracy (%)", color=ACCURACY_COLOR)
    right.tick_params(axis="y", colors=ACCURACY_COLOR)
    right.spines["right"].set_visible(True)


def warn_once(key: str, message: str) -> None:
    """Log a warning the first time its key is given."""
    if key not in _warned:
        _warned.add(key)
        logger.warning(message)
