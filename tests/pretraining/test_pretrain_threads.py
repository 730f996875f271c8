"""Threads on CPU: a launcher's default is replaced, a number that the user gave is kept."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rexbert_hf.pretraining import threads

SCRIPT = f"""
import importlib.util, logging, os, sys
import torch
os.sched_getaffinity = lambda pid: set(range(6))
spec = importlib.util.spec_from_file_location("threads", {threads.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
place = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.environ.get("RANK", "0"))
logging.basicConfig(level=logging.INFO, format="%(message)s", filename=place + ".log")
module.set_threads(None)
with open(place + ".threads", "w") as file:
    file.write(str(torch.get_num_threads()))
"""
"""What `make_arguments` calls, on a machine of six cores. A file for each rank: in one stream their lines would mix."""
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


def launched(tmp_path: Path, launcher: list[str], **variables: str) -> tuple[list[int], list[str]]:
    """Threads of each process that the launcher starts, and what they log."""
    (tmp_path / "script.py").write_text(SCRIPT)
    left_out = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "WORLD_SIZE", "RANK", "LOCAL_RANK")
    clean = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [*launcher, str(tmp_path / "script.py")], env=clean | variables, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    counts = [int(path.read_text()) for path in sorted(tmp_path.glob("*.threads"))]
    return counts, [line for path in sorted(tmp_path.glob("*.log")) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("launcher", "expected"), [(ACCELERATE, [6]), (TORCHRUN, [3, 3])], ids=["accelerate", "torchrun"]
)
def test_a_launcher_s_default_becomes_a_share_of_the_cores(tmp_path, launcher, expected):
    counts, log = launched(tmp_path, launcher)
    assert counts == expected
    assert len(log) == len(expected)
    assert f"{expected[0]} torch threads instead (cores here: 6, processes: {len(expected)})" in log[0]


def test_the_user_s_own_variable_stays(tmp_path):
    assert launched(tmp_path, ACCELERATE, OMP_NUM_THREADS="1") == ([1], [])


@pytest.fixture
def under_accelerate(monkeypatch):
    """As in a process of `accelerate launch` on four cores; torch's threads are put back."""
    before = torch.get_num_threads()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "_launcher", lambda: (["accelerate", "launch", "train.py"], {"HOME"}))
    torch.set_num_threads(1)
    yield monkeypatch
    torch.set_num_threads(before)


def test_the_share_of_a_process(under_accelerate, caplog):
    under_accelerate.setenv("LOCAL_WORLD_SIZE", "2")
    with caplog.at_level(logging.INFO):
        threads.set_threads(None)
    assert torch.get_num_threads() == 2
    assert len(caplog.records) == 1
    under_accelerate.setenv("LOCAL_WORLD_SIZE", "9")  # more processes than cores
    torch.set_num_threads(1)
    threads.set_threads(None)
    assert torch.get_num_threads() == 1


def test_the_recipe_s_own_number_counts_most(under_accelerate, caplog):
    with caplog.at_level(logging.INFO):
        threads.set_threads(3)
    assert torch.get_num_threads() == 3
    assert not caplog.records


def test_a_number_for_accelerate_launch_stays(under_accelerate):
    words = ["accelerate", "launch", "--num-cpu-threads-per-process=1", "train.py"]
    under_accelerate.setattr(threads, "_launcher", lambda: (words, {"HOME"}))
    threads.set_threads(None)
    assert torch.get_num_threads() == 1


def test_threads_that_the_program_set_stay(under_accelerate):
    torch.set_num_threads(2)
    threads.set_threads(None)
    assert torch.get_num_threads() == 2


def test_without_a_launcher_torch_chooses(under_accelerate):
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "TORCHELASTIC_"))]:
        under_accelerate.delenv(name)
    threads.set_threads(None)
    assert torch.get_num_threads() == 1


def test_a_system_that_does_not_tell(under_accelerate):
    """Without /proc the value 1 counts as the launcher's, any other as the user's."""
    under_accelerate.setattr(threads, "_launcher", lambda: None)
    under_accelerate.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    threads.set_threads(None)
    assert torch.get_num_threads() == 2
    under_accelerate.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    threads.set_threads(None)
    assert torch.get_num_threads() == 4
