"""The recipe from the command line, killed once it has a result, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "recipes" / "evaluate.py")]
WORDS = ["--tasks", "product_search", "--models", "bm25", "random", "--resamples", "200", "--output_dir", "out"]


def test_killed_and_started_again(tmp_path):
    pytest.importorskip("bm25s")
    with subprocess.Popen([*COMMAND, *WORDS], stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        cells = tmp_path / "out" / "cache" / "product_search"
        while process.poll() is None and not list(cells.glob("*.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    done = subprocess.run([*COMMAND, *WORDS], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "product_search, bm25, seed 0" in done.stderr
    assert "(from the cache)" in done.stderr
    assert "real: bm25 - random on product_search" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(cell["model"], cell["seed"]) for cell in results["cells"]] == [("bm25", 0), ("random", 0)]
    for name in ("report.md", "run.json", "plots/figures.png"):
        assert (tmp_path / "out" / name).is_file(), name
