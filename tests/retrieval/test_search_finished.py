"""Finished runs of search whose files were damaged, or that were killed at the very end: a new start puts it right."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_finetune_search import distil_settings, reranker_of, settings_of

from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.reranker import finetune_reranker
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer, StepTrainer

SHORT = {"trainer__max_steps": "2", "trainer__save_epochs": "0.01", "validation__test": "false"}
WEIGHTS = ("model.safetensors", "modernbert/model.safetensors")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_results(path):
    run = json.loads(path.read_text())
    del run["results"]
    path.write_text(json.dumps(run))


def cut_in_half(path):
    path.write_text(path.read_text()[: path.stat().st_size // 2])


DAMAGE = {
    "weights cut": ("model.safetensors", cut),
    "weights gone": ("model.safetensors", lambda path: path.unlink()),
    "stock weights cut": ("modernbert/model.safetensors", cut),
    "run.json cut": ("run.json", cut_in_half),
    "run.json without results": ("run.json", without_results),
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    output = tmp_path_factory.mktemp("teacher") / "run"
    finetune_search(settings_of(output, **SHORT))
    return output


def copied(finished, tmp_path):
    """A copy of a finished run, as if it had been made in its new place."""
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    (output / "run.json").write_text((finished / "run.json").read_text().replace(str(finished), str(output)))
    return output


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_damaged_is_written_again_from_the_last_checkpoint(teacher, tmp_path, damage, caplog):
    output = copied(teacher, tmp_path)
    name, change = DAMAGE[damage]
    change(output / name)
    results = finetune_search(settings_of(output, **SHORT))
    assert results["resumed_from_step"] == results["steps"] == 2, "nothing was trained again"
    assert "the result is written again" in caplog.text
    assert read_run(output)["results"]["steps"] == 2
    for weights in WEIGHTS:
        one, two = load_file(teacher / weights), load_file(output / weights)
        assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_finished_run_gives_back_what_a_kill_at_the_very_end_left(teacher, tmp_path, monkeypatch):
    output = copied(teacher, tmp_path)
    (output / "best").mkdir()
    (output / "best" / "model.safetensors").write_bytes(b"weights")
    (output / "negatives-1.npy").write_bytes(b"table")
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    finetune_search(settings_of(output, **SHORT))
    assert {path.name for path in output.iterdir()} == {path.name for path in teacher.iterdir()}


def test_a_finished_run_that_was_not_tested_says_so_and_is_tested_from_its_checkpoint(teacher, tmp_path, caplog):
    output = copied(teacher, tmp_path)
    asked = settings_of(output, **{**SHORT, "validation__test": "true"})
    assert "test" not in finetune_search(asked)
    assert "remove its run.json and start again, which measures them from the last checkpoint" in caplog.text
    (output / "run.json").unlink()
    results = finetune_search(asked)
    assert results["resumed_from_step"] == results["steps"] == 2, "nothing was trained again"
    assert set(results["test"]) >= {"recall@10", "recall@100"}
    caplog.clear()
    finetune_search(asked)
    assert "test figures" not in caplog.text


def test_a_finished_distillation_gives_back_its_teachers_scores(teacher, tmp_path, monkeypatch):
    settings = distil_settings(tmp_path / "run", teacher, **SHORT)
    distil_search(settings)
    left = tmp_path / "run" / "cache" / "teacher-0"
    left.mkdir(parents=True)
    (left / "queries.npy").write_bytes(b"scores")
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    distil_search(settings)
    assert not (tmp_path / "run" / "cache").exists()


def test_a_reranker_with_cut_weights_is_written_again(teacher, tmp_path):
    settings = reranker_of(tmp_path / "run", teacher, trainer__max_steps="2", trainer__save_epochs="0.01")
    finetune_reranker(settings)
    path = tmp_path / "run" / "model.safetensors"
    before = load_file(path)
    path.unlink()
    assert finetune_reranker(settings)["resumed_from_step"] == 2
    after = load_file(path)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_best_weights_of_a_damaged_model_are_those_of_their_checkpoint(teacher, tmp_path, monkeypatch):
    """The copy of the best model went when the run was finished, and the last step's must not take its place."""
    output = copied(teacher, tmp_path)
    cut(output / "model.safetensors")
    monkeypatch.setattr(SearchTrainer, "history", lambda self, state=None: [(1, 0.9), (2, 0.1)])
    finetune_search(settings_of(output, **SHORT))
    best, last, found = (
        load_file(folder / "model.safetensors") for folder in (output / "checkpoint-1", output / "checkpoint-2", output)
    )
    assert all(torch.equal(value, found[key]) for key, value in best.items())
    assert not all(torch.equal(value, found[key]) for key, value in last.items())
