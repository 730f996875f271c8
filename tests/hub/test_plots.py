"""The loss plot: drawn from what was logged, missing without noise when it cannot be drawn."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from rexbert_hf.hub import loss_plot, plots

HISTORY = [{"step": i, "tokens": 1000 * i, "loss": 8 / i} for i in range(1, 101)]
HISTORY += [{"tokens": 100_000, "step": 100, "eval_masked_accuracy": 0.25}]
PHASES = [{"name": "general", "tokens": 60_000, "steps": 60}, {"name": "anneal", "tokens": 40_000, "steps": 40}]
needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is missing")


@needs_matplotlib
def test_what_is_drawn_is_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib import pyplot

    kept = []  # matplotlib before 3.10 closes "all" first, when it chooses its back-end
    monkeypatch.setattr(pyplot, "close", kept.append)
    path = loss_plot(HISTORY, tmp_path / "new" / "loss.png", PHASES, title="tiny")
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 200_000
    left, right = kept[-1].axes
    assert left.lines[0].get_xydata().tolist() == [[1000.0 * i, 8 / i] for i in range(1, 101)]
    assert right.lines[0].get_xydata().tolist() == [[100_000.0, 25.0]]
    assert [text.get_text() for text in left.texts] == ["general", "anneal"]
    assert [(round(p.get_x()), round(p.get_width())) for p in left.patches] == [(0, 60_000), (60_000, 40_000)]
    assert left.get_xlabel() == "training tokens"


@needs_matplotlib
def test_steps_are_the_axis_when_tokens_were_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib import pyplot

    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    loss_plot(
        [{"step": 1, "tokens": 10, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0}],
        tmp_path / "a.png",
    )
    assert kept[-1].axes[0].lines[0].get_xydata().tolist() == [[1.0, 2.0], [3.0, 1.0]]
    assert kept[-1].axes[0].get_xlabel() == "training steps"


def test_the_smoothed_curve_does_not_lag():
    line = [float(i) for i in range(50)]
    assert plots.smooth(line, 9) == pytest.approx(line)
    assert plots.smooth([0.0, 1.0] * 20, 9)[20] == pytest.approx(0.5, abs=0.06)


def test_without_matplotlib_there_is_one_warning_and_no_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(plots, "_warned", set())
    with caplog.at_level(logging.WARNING):
        assert [loss_plot(HISTORY, tmp_path / "a.png") for _ in range(2)] == [None, None]
    assert [record.message for record in caplog.records] == [
        "matplotlib is not installed: the card goes without a plot (pip install matplotlib)"
    ]
    assert not (tmp_path / "a.png").exists()


def test_an_empty_history_gives_no_plot(tmp_path: Path):
    assert loss_plot([], tmp_path / "a.png") is None
    assert loss_plot([{"step": 1, "grad_norm": 1.0}], tmp_path / "a.png") is None
