"""The walkthrough from three files to a search page runs as it is printed, with a few steps of each training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rexbert_hf import ProductIndex

ROOT = Path(__file__).parents[2]
STEPS = ("quickstart", "corpus", "continue", "build_pairs", "qpi", "finetune", "distil", "evaluate", "index", "onnx")


@pytest.mark.timeout(1200)
def test_every_block_of_the_page_runs_in_its_order(tmp_path, monkeypatch):
    command = [sys.executable, str(ROOT / "benchmarks" / "walkthrough.py"), "--quick", "--folder", str(tmp_path)]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    readings = {entry["name"]: entry for entry in json.loads(done.stdout.splitlines()[-1])}
    ran = [name for name, entry in readings.items() if entry["unit"] == "s"]
    assert len(ran) == 1 + len(STEPS)
    for step, name in zip(STEPS, ran[1:], strict=True):
        assert step in name
    recall = {name.rpartition("/")[2]: entry["ours"] for name, entry in readings.items() if "recall" in name}
    assert list(recall) == ["my-encoder", "my-search", "my-student", "random"]
    assert recall["random"] < 0.1
    assert readings["walkthrough/recall@100/random"]["peer"] > 0.8, "BM25 finds what the sample log bought"
    monkeypatch.chdir(tmp_path)  # the index names its model as the command did
    output = Path("output")  # what the command that opens the page is given
    assert (output / "my-encoder" / "config.json").is_file()
    assert len(ProductIndex.load(output / "my-index").search(["steel ketle"], k=3)[0]) == 3
