"""The same global batch on one process, accumulated, and on two processes gives the same losses and gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_cases import make_bert, make_curriculum, make_model, make_padded_curriculum, make_trainer

from rexbert_hf.training import last_complete_checkpoint
from rexbert_hf.training.padded_parts import PARTS

SCRIPT = Path(__file__).with_name("training_cases.py")
OPTIONS = '{"micro_batch_tokens": 256, "steps": [3, 3], "save_steps": 3}'


def run_two_ranks(output_dir, options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc_per_node", "2", str(SCRIPT), str(output_dir), options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    return done


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = run_two_ranks(folder, OPTIONS)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, torch.load(folder / "final.pt", weights_only=True)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_no_thread_of_the_group_outlives_a_run(two_ranks):
    """One that is there when the interpreter ends now and then aborts a finished process."""
    for rank in (0, 1):
        names = json.loads(Path(f"{two_ranks[0]}-threads-{rank}.json").read_text())
        assert names
        assert not [name for name in names if "gloo" in name]


def single(folder, micro_batch_tokens):
    """Losses and gradient norms of one process; dropout on, since it is seeded by micro-batch and not by rank."""
    curriculum = make_curriculum((3, 3), micro_batch_tokens=micro_batch_tokens)
    trainer = make_trainer(folder, curriculum, make_model(), save_steps=3)
    trainer.train()
    return trainer


def logged(trainer, key):
    return torch.tensor([entry[key] for entry in trainer.state.log_history if key in entry])


def test_two_ranks_equal_accumulation(two_ranks, tmp_path):
    trainer = single(tmp_path, 256)
    assert trainer.args.gradient_accumulation_steps == 2
    _, result = two_ranks
    torch.testing.assert_close(torch.tensor(result["losses"]), logged(trainer, "loss"), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(result["norms"]), logged(trainer, "grad_norm"), rtol=1e-4, atol=1e-6)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(result["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_two_ranks_equal_accumulation_where_batches_come_in_parts(tmp_path):
    """Ranks have different numbers of parts, and meet once a step all the same."""
    options = json.dumps({"steps": [2, 2], "save_steps": 100, "padded": True})
    done = run_two_ranks(tmp_path / "two", options)
    assert done.returncode == 0, done.stderr[-3000:]
    result = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    trainer = make_trainer(tmp_path / "one", make_padded_curriculum((2, 2)), make_bert(), save_steps=100)
    rows = trainer.train_dataset
    parts = [[len(trainer.data_collator(rows[step, i]).get(PARTS, [0])) for i in (0, 1)] for step in range(4)]
    assert any(first != second for first, second in parts)
    trainer.train()
    torch.testing.assert_close(torch.tensor(result["losses"]), logged(trainer, "loss"), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(result["norms"]), logged(trainer, "grad_norm"), rtol=1e-4, atol=1e-6)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(result["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_two_ranks_equal_one_with_sampled_cells(tmp_path):
    """Each micro-batch draws its own cells, whichever process runs it, and every weight gets a gradient everywhere."""
    grid = {"matryoshka_layers": [1, 2], "matryoshka_dims": [4, 8, 16], "matryoshka_sample": 2}
    options = json.dumps({"steps": [2, 2], "save_steps": 100, "model": grid})
    done = run_two_ranks(tmp_path / "two", options)
    assert done.returncode == 0, done.stderr[-3000:]
    result = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    trainer = make_trainer(tmp_path / "one", make_curriculum((2, 2)), make_model(**grid), save_steps=100)
    trainer.train()
    torch.testing.assert_close(torch.tensor(result["losses"]), logged(trainer, "loss"), rtol=1e-5, atol=1e-6)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(result["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_two_ranks_leave_complete_checkpoints_that_one_process_continues(two_ranks):
    folder, result = two_ranks
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-3", "checkpoint-6", "final.pt"]
    trainer = single(folder, 256)
    assert trainer.resumed_from_step == 6
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(result["weights"][name], value), name


def test_a_signal_on_one_rank_stops_all_after_the_same_step(tmp_path):
    done = run_two_ranks(tmp_path, '{"steps": [3, 3], "save_steps": 100, "terminate_rank_1_after": 1}')
    assert done.returncode != 0
    assert "exitcode  : 143" in done.stderr
    found = last_complete_checkpoint(tmp_path)
    assert found.step == 2, "the step after the signal is the first that all ranks agree on"
    assert not (tmp_path / "final.pt").exists()


def test_a_plan_for_other_ranks_is_refused(tmp_path):
    from training_cases import make_store, make_tokenizer

    from rexbert_hf.data.loader import CurriculumDataset
    from rexbert_hf.training import CurriculumArguments, CurriculumTrainer, resolve

    stores = {"general": make_store(0), "shop": make_store(1)}
    plan = resolve(make_curriculum(), stores, world_size=2)
    args = CurriculumArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match=r"the plan is for 2 process\(es\) but 1 run"):
        CurriculumTrainer(make_model(), args, plan, CurriculumDataset(plan.orders, stores), make_tokenizer())
