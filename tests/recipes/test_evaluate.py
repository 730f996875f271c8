"""The recipe from the command line, killed once it has a result, and started again."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.settings import parse_args

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "recipes" / "evaluate.py")]
WORDS = ["--tasks", "product_search", "--models", "bm25", "random", "--resamples", "200", "--output_dir", "out"]


def test_killed_and_started_again(tmp_path, monkeypatch, caplog):
    pytest.importorskip("bm25s")
    with subprocess.Popen([*COMMAND, *WORDS], stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        cells = tmp_path / "out" / "cache" / "product_search"
        while process.poll() is None and not list(cells.glob("*.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        results = evaluate(parse_args(EvaluateSettings, WORDS, ROOT / "recipes" / "configs" / "evaluate.yaml"))
    assert "product_search, bm25, seed 0" in caplog.text
    assert "(from the cache)" in caplog.text
    assert [(cell["model"], cell["seed"]) for cell in results["cells"]] == [("bm25", 0), ("random", 0)]
    assert [row["real"] for row in results["comparisons"]] == [True]
    for name in ("report.md", "results.json", "run.json", "plots/figures.png"):
        assert (tmp_path / "out" / name).is_file(), name


def test_a_model_that_is_not_there_is_no_success(tmp_path, monkeypatch, capsys):
    recipe = runpy.run_path(COMMAND[1])
    words = ["--tasks", "query_category", "--models", "./nowhere", "random", "--output_dir", str(tmp_path / "out")]
    for more, status in (([], 1), (["--missing_models", "skip"], 0)):
        monkeypatch.setattr(sys, "argv", [COMMAND[1], *words, *more])
        assert recipe["main"]() == status
        assert "skipped: model ./nowhere: nowhere does not exist" in capsys.readouterr().out
