"""A run killed twice, once in the middle of writing a checkpoint, ends with the weights of one that never was."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_cases import make_curriculum, make_trainer, weights_of

from rexbert_hf.training import last_complete_checkpoint

SCRIPT = Path(__file__).with_name("training_cases.py")


def start(output_dir, options):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(output_dir), options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def assert_same(weights, expected):
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Weights after 12 steps over two phases, dropout on."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), make_curriculum())
    trainer.train()
    return weights_of(trainer.model)


def test_killed_between_phases_and_while_saving(tmp_path, uninterrupted):
    """Checkpoints at 4, 6 (end of phase one), 8, 12: SIGKILL in step 6, then while checkpoint-8 is written."""
    first = start(tmp_path, '{"kill_after": 6}')
    assert first.wait(120) == -9
    assert last_complete_checkpoint(tmp_path).step == 4

    second = start(tmp_path, '{"pause_at": 8}')
    assert second.stdout.readline() == "PAUSED\n"
    second.kill()
    second.wait()
    assert any(path.name.startswith(".staging-") for path in tmp_path.iterdir())
    assert last_complete_checkpoint(tmp_path).step == 6

    trainer = make_trainer(tmp_path, make_curriculum())
    trainer.train()
    assert trainer.resumed_from_step == 6
    assert_same(weights_of(trainer.model), uninterrupted)
    names = {"checkpoint-4", "checkpoint-6", "checkpoint-8", "checkpoint-12"}  # two, and the ends of the phases
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("stops", [(1, 5), (6, 7), (4, 11)])
def test_stopped_twice_anywhere(tmp_path, uninterrupted, stops):
    """A stop after any step, at checkpoints or not, on phase borders or not; workers may change between starts."""
    for number, stop in enumerate(stops):
        trainer = make_trainer(tmp_path, make_curriculum(), save_steps=2, max_steps=stop, dataloader_num_workers=number)
        trainer.train()
        assert trainer.state.global_step == stop
    trainer = make_trainer(tmp_path, make_curriculum())
    trainer.train()
    assert trainer.resumed_from_step == stops[-1]
    assert_same(weights_of(trainer.model), uninterrupted)


def test_how_often_to_save_and_log_may_change(tmp_path, uninterrupted):
    trainer = make_trainer(tmp_path, make_curriculum(), max_steps=4)
    trainer.train()
    trainer = make_trainer(tmp_path, make_curriculum(), save_steps=5, logging_steps=3, save_total_limit=9)
    trainer.train()
    assert_same(weights_of(trainer.model), uninterrupted)
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in (4, 5, 6, 10, 12)}
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3, 4, 6, 9, 12]


def three_phases():
    """The second phase changes the RoPE base, the third sets none and so keeps it."""
    curriculum = make_curriculum((2, 2))
    last = dataclasses.replace(curriculum.phases[1], name="last", global_rope_theta=None, local_rope_theta=None)
    curriculum.phases[1].local_rope_theta = 5_000.0
    return dataclasses.replace(curriculum, phases=[*curriculum.phases, last])


def test_a_rope_base_that_an_earlier_phase_set_is_kept_by_a_resumed_run(tmp_path):
    """Bit-identity inside a phase without a base, and the base itself of a finished run that is started again."""
    whole = make_trainer(tmp_path / "whole", three_phases())
    whole.train()
    make_trainer(tmp_path / "parts", three_phases(), max_steps=5).train()
    parts = make_trainer(tmp_path / "parts", three_phases())
    parts.train()
    assert parts.resumed_from_step == 5
    assert_same(weights_of(parts.model), weights_of(whole.model))
    finished = make_trainer(tmp_path / "parts", three_phases())
    finished.train()
    assert finished.resumed_from_step == finished.state.global_step == 6
    for trainer in (whole, parts, finished):
        rope = trainer.model.config.rope_parameters
        assert rope["full_attention"]["rope_theta"] == 160_000.0
        assert rope["sliding_attention"]["rope_theta"] == 5_000.0


def test_dropout_is_part_of_what_is_reproduced(tmp_path, uninterrupted):
    """The comparison above would notice a wrong generator state: without dropout the weights differ."""
    from training_cases import make_model

    trainer = make_trainer(tmp_path, make_curriculum(), make_model(dropout=0.0))
    trainer.train()
    assert not torch.equal(weights_of(trainer.model)["decoder.bias"], uninterrupted["decoder.bias"])


def test_half_precision_state_resumes_too(tmp_path):
    """bf16 weights: the fp32 copies and moments are in the checkpoint."""
    from training_cases import make_model

    whole = make_trainer(tmp_path / "whole", make_curriculum((3, 2)), make_model().to(torch.bfloat16))
    whole.train()
    for stop in (2, 100):
        parts = make_trainer(
            tmp_path / "parts", make_curriculum((3, 2)), make_model().to(torch.bfloat16), max_steps=min(stop, 5)
        )
        parts.train()
    assert parts.resumed_from_step == 2
    assert_same(weights_of(parts.model), weights_of(whole.model))
