from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from rexbert_hf.hub.run_plot import panels_of, read_history, read_phases, run_plot

RECIPE = Path(__file__).parents[2] / "recipes" / "plot_run.py"


def plain_history(steps=60):
    return [{"step": 10 * i, "loss": 6 - i / 20, "masked_accuracy": i / 100, "phase": i // 31} for i in range(1, steps)]


def adaptive_history():
    history = plain_history()
    for i, entry in enumerate(history[30:]):
        mode = ("word", "phrase")[i % 2]
        entry |= {"alpha": 0.5, "eta_w": 0.0 if i < 5 else 1e-4 * i, "eta_p": 1e-3, "word_share": 1.0 - i % 2}
        entry[f"loss_{mode}"] = entry["loss"]
    return [{"step": 0, "eval_shop_accuracy": 0.01}, *history, {"step": 600, "eval_shop_accuracy": 0.4}]


def write_state(folder, step, history):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))


def drawn_rows(image, color):
    """Rows of a picture that hold a pixel of about this color."""
    wanted = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.flatnonzero((np.abs(image[:, :, :3] - wanted) < 0.05).all(axis=2).any(axis=1))


def test_panels_follow_what_was_logged():
    assert [panel.title for panel in panels_of(plain_history())] == ["training loss", "masked accuracy"]
    assert [panel.title for panel in panels_of(adaptive_history())] == [
        "training loss",
        "masked accuracy",
        "word mode",
        "fitting index",
        "loss by mode",
    ]
    assert panels_of([{"step": 1, "loss": 1.0, "loss_npr": 0.5}])[-1].title == "npr loss"


def test_both_modes_are_drawn_in_three_panels(tmp_path):
    titles = run_plot(adaptive_history(), tmp_path / "run.png", [{"name": "one", "steps": 300}])
    assert len(titles) == 5
    image = imread(tmp_path / "run.png")
    orange = drawn_rows(image, "#c05a00")
    panel = len(image) / 5
    for index in (2, 3, 4):
        assert any(index * panel < row < (index + 1) * panel for row in orange), titles[index]
    assert not any(row < panel for row in orange)


def test_the_newest_state_counts(tmp_path):
    write_state(tmp_path / "checkpoint-90", 90, [{"step": 90, "loss": 1.0}])
    write_state(tmp_path / "checkpoint-100", 100, [{"step": 100, "loss": 2.0}])
    assert read_history(tmp_path)[0]["step"] == 100
    assert read_history(tmp_path / "checkpoint-90")[0]["step"] == 90
    write_state(tmp_path, 120, [{"step": 120, "loss": 2.0}])
    assert read_history(tmp_path)[0]["step"] == 120
    (tmp_path / "trainer_state.json").write_text('{"global_step": ')
    assert read_history(tmp_path)[0]["step"] == 100, "a damaged one is passed over"


def test_folders_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trainer_state\.json here or in a checkpoint-\*"):
        read_history(tmp_path)
    (tmp_path / "trainer_state.json").write_text("[]")
    with pytest.raises(ValueError, match=r"trainer_state\.json: not a trainer's state"):
        read_history(tmp_path)
    with pytest.raises(ValueError, match="no training loss yet"):
        run_plot([{"step": 0, "eval_accuracy": 0.1}], tmp_path / "run.png")
    assert not (tmp_path / "run.png").exists()


def test_phases_get_their_names_from_the_run_file(tmp_path):
    history = adaptive_history()
    assert read_phases(tmp_path, history) == [{"name": "phase 1", "steps": 300}, {"name": "phase 2", "steps": 290}]
    config = {"phases": [{"name": "words"}, {"name": "both"}]}
    run = {"config": config, "results": {}, "resumed_from_step": None, "versions": {}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert [phase["name"] for phase in read_phases(tmp_path, history)] == ["words", "both"]


def test_the_recipe_draws_and_refuses(tmp_path):
    write_state(tmp_path / "checkpoint-600", 600, adaptive_history())
    done = subprocess.run([sys.executable, RECIPE, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "word mode, fitting index, loss by mode" in done.stdout
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run([sys.executable, RECIPE, empty], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
