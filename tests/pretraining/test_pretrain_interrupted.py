"""The real recipe, stopped by signals and started again, ends with the weights of a run that nothing stopped."""

from __future__ import annotations

import signal
import sys

import pytest
import torch
from pretraining_cases import assert_same_weights, run, start, weights, whole_run, words

from rexbert_hf.hub import read_run
from rexbert_hf.training import last_complete_checkpoint

LONGER = {"phases__anneal__max_tokens": "40k", "trainer__save_steps": "10"}
"""About 50 steps: enough that a signal after a few of them meets the run in training."""


def lines_until(process, wanted):
    """Read stderr until a line holds `wanted`."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if wanted in line:
            return
    pytest.fail(f"'{wanted}' was never said:\n{''.join(seen)}")


def test_killed_three_times(tmp_path):
    """SIGKILL while the data is prepared, SIGTERM in training, SIGKILL in training, then left to finish."""
    output, cache = tmp_path / "out", tmp_path / "cache"
    command = words(output, cache_dir=cache, **LONGER)

    process = start(command, OMP_NUM_THREADS="1")
    lines_until(process, "tokenised-")  # the training part of the first source is in place, its manifest is not
    process.kill()
    process.communicate()
    assert not list(cache.glob("*/prepared.json"))

    process = start(command, OMP_NUM_THREADS="1")
    lines_until(process, "step 3/")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "SIGTERM: saving a checkpoint" in err
    assert "Traceback" not in err
    assert "model, card" not in out
    terminated = last_complete_checkpoint(output).step
    assert terminated >= 3
    assert not (output / "run.json").exists()

    process = start(command, OMP_NUM_THREADS="1")
    lines_until(process, "step 23/")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed = last_complete_checkpoint(output).step
    assert killed >= max(20, terminated)

    results = run(output, cache_dir=cache, **LONGER)
    assert read_run(output)["resumed_from_step"] == killed < results["phases"][-1]["steps"]
    assert not list(tmp_path.rglob(".reading-*")) + list(tmp_path.rglob(".staging-*"))
    whole = run(tmp_path / "whole", **LONGER)
    assert_same_weights(output, tmp_path / "whole")
    for found, wanted in zip(results["phases"], whole["phases"], strict=True):
        assert {k: v for k, v in found.items() if "second" not in k} == {
            k: v for k, v in wanted.items() if "second" not in k
        }


def test_two_processes_give_the_result_of_one(tmp_path):
    """torchrun with two ranks: the same global batches, so the same weights to rounding. Also the demand for two."""
    one = whole_run()  # dropout is drawn by micro-batch, of which both runs have the same
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    demand = words(tmp_path / "two", trainer__num_processes=2)
    process = start(demand, launcher, OMP_NUM_THREADS="1")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-4000:]
    assert out.count("model, card and run.json in") == 1
    ours, theirs = weights(tmp_path / "two"), weights(one)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=2e-5, rtol=1e-3, msg=name)
    a, b = (read_run(folder)["results"]["phases"] for folder in (one, tmp_path / "two"))
    assert [phase["loss"] for phase in a] == pytest.approx([phase["loss"] for phase in b], abs=1e-3)
    for key in ("masked_accuracy_before", "masked_accuracy_after", "steps", "tokens"):
        assert [phase[key] for phase in a] == pytest.approx([phase[key] for phase in b], abs=0.011)


def test_accelerate_that_starts_one_of_two_is_noticed(tmp_path):
    """On CPU `accelerate launch --num_processes 2` runs one process without a word."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    process = start(words(tmp_path / "out"), launcher, OMP_NUM_THREADS="1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    own = [line for line in err.splitlines() if line.startswith("error: ")]
    assert own == [line for line in own if "asked for 2 processes, but 1 run" in line]
    assert len(own) == 1
    assert "torchrun" in own[0]
    assert not (tmp_path / "out").exists()
