"""Finished runs of search whose files were damaged, or that were killed at the very end: a new start puts it right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_finetune_search import distil_settings, reranker_of, settings_of

from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.training import search_finish
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.evaluator import SearchEvaluator
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


def test_a_finished_run_without_checkpoints_is_never_trained_over(teacher, tmp_path, monkeypatch):
    output = copied(teacher, tmp_path)
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    run = json.loads((output / "run.json").read_text())
    run["config"]["output_dir"] = "elsewhere"  # the folder was moved
    del run["config"]["rows"]["typos"]  # an earlier version did not know it
    (output / "run.json").write_text(json.dumps(run))
    kept = content(output)
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    finetune_search(settings_of(output, **SHORT))
    for more, told in (
        ({"loss__scale": "30"}, r"loss.scale: 20.0 -> 30.0"),
        ({"rows__typos": "0.5"}, r"rows.typos: 0.0 -> 0.5"),
        ({"data__sample_size": "140"}, r"data: \w+ -> \w+"),
    ):
        with pytest.raises(ValueError, match=rf"finished run of another recipe \({told}\), and no checkpoint of it"):
            finetune_search(settings_of(output, **SHORT, **more))
    del run["results"]["made_of"]  # nor what names the contents
    (output / "run.json").write_text(json.dumps(run))
    finetune_search(settings_of(output, **SHORT))
    (output / "run.json").write_bytes(kept[Path("run.json")])
    assert content(output) == kept


def test_a_model_that_is_read_and_another_recipes_run_are_not_written_over(teacher, tmp_path):
    output = copied(teacher, tmp_path)
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    kept = content(output)
    own = rf"{output} is the folder of the model itself: choose another output_dir"
    with pytest.raises(ValueError, match=own):
        finetune_search(settings_of(output, **SHORT, model__base=str(output)))
    with pytest.raises(ValueError, match=own):
        distil_search(distil_settings(output, output, **SHORT))
    with pytest.raises(ValueError, match=own):
        finetune_reranker(reranker_of(output, output))
    for start in (
        lambda: distil_search(distil_settings(output, teacher, **SHORT)),
        lambda: finetune_reranker(reranker_of(output, teacher)),
    ):
        with pytest.raises(ValueError, match=f"{output} holds another run: choose another output_dir"):
            start()
    (output / "run.json").unlink()  # and no checkpoint of a start that was killed: somebody else's model
    del kept[Path("run.json")]
    for start in (
        lambda: finetune_search(settings_of(output, **SHORT)),
        lambda: distil_search(distil_settings(output, teacher, **SHORT)),
        lambda: finetune_reranker(reranker_of(output, teacher)),
    ):
        with pytest.raises(ValueError, match=rf"{output} holds a model that this recipe did not make \(config.json\)"):
            start()
    assert content(output) == kept


@pytest.mark.parametrize("checkpoints", ["kept", "removed"])
def test_a_finished_run_whose_card_is_gone_gets_it_again(teacher, tmp_path, monkeypatch, checkpoints):
    output = copied(teacher, tmp_path)
    for checkpoint in output.glob("checkpoint-*") if checkpoints == "removed" else ():
        shutil.rmtree(checkpoint)
    kept = content(output)
    (output / "README.md").unlink()
    refused = "finished run of another recipe" if checkpoints == "removed" else "a run with another plan"
    with pytest.raises(ValueError, match=refused):
        finetune_search(settings_of(output, **SHORT, loss__scale="30"))
    assert not (output / "README.md").exists()
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    assert finetune_search(settings_of(output, **SHORT)) == read_run(output)["results"]
    assert content(output) == kept


@pytest.mark.parametrize("beside", ["checkpoint-500/model.safetensors", "best/model.safetensors", "best alone"])
def test_a_training_folder_of_another_trainer_is_refused_and_untouched(tmp_path, beside):
    """Its checkpoints and its best model have the names that this package's have."""
    output, base = tmp_path / "run", str(tmp_path / "base")
    theirs = output / ("best/model.safetensors" if beside == "best alone" else beside)
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    told = rf"{output / 'best'} is not of this recipe, or an earlier version began it: choose another output_dir, or"
    if beside != "best alone":
        for name in ("config.json", "model.safetensors"):
            (output / name).write_text("theirs")
        told = rf"{output} holds a model that this recipe did not make \(config.json\): choose another output_dir$"
    kept = content(output)
    for start in (
        lambda: finetune_search(settings_of(output, **SHORT)),
        lambda: distil_search(distil_settings(output, base, **SHORT)),
        lambda: finetune_reranker(reranker_of(output, base)),
    ):
        with pytest.raises(ValueError, match=told):
            start()
    assert content(output) == kept


@pytest.mark.parametrize("sign", ["checkpoint-2/checkpoint_complete.json", "best/figure.json"])
def test_a_stopped_run_is_known_by_what_this_package_alone_writes(tmp_path, sign):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / sign).parent.mkdir()
    (tmp_path / sign).write_text("{")  # torn
    search_finish.check_folder(tmp_path, "loss", None)


@pytest.mark.parametrize(
    "more",
    [{"trainer__max_minutes": "1e-5"}, {"validation__patience": "1", "validation__every_epochs": "0.01"}],
    ids=str,
)
def test_a_run_that_ended_early_and_was_killed_while_it_finished_goes_on(tmp_path, monkeypatch, more):
    """It stopped before any checkpoint was due, and the model is there before its run.json."""
    more = {"validation__test": "false", "trainer__epochs": "3", **more}
    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "is_exhausted", lambda self, figures: self.patience is not None)
        patch.setattr(search_finish, "write_run", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune_search(settings_of(tmp_path, **more))
        assert (tmp_path / "modules.json").exists()
        patch.undo()
        patch.setattr(SearchTrainer, "is_exhausted", lambda self, figures: self.patience is not None)
        patch.setattr(SearchTrainer, "training_step", lambda *_: pytest.fail("trained on"))
        results = finetune_search(settings_of(tmp_path, **more))
    assert results["resumed_from_step"] == results["steps"] > 0
    assert read_run(tmp_path)["results"]["steps"] == results["steps"]


def test_a_finished_run_gives_back_what_a_kill_at_the_very_end_left(teacher, tmp_path, monkeypatch):
    output = copied(teacher, tmp_path)
    (output / "best").mkdir()
    (output / "best" / "model.safetensors").write_bytes(b"weights")
    (output / "negatives-1.npy").write_bytes(b"table")
    run = read_run(output)
    run["config"]["data"] = "<redacted>"  # by a version that hid more
    (output / "run.json").write_text(json.dumps(run))
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    finetune_search(settings_of(output, **SHORT))
    assert {path.name for path in output.iterdir()} == {path.name for path in teacher.iterdir()}


TESTED = {**SHORT, "validation__test": "true"}


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"matryoshka__layers": "[1, 2]", "matryoshka__dims": "[8, 64]"},
        {"model__shared": "false", "model__pooling": "cls"},
        {"model__preset": "dssm", "model__overrides": "{dimensions: 32}"},
    ],
    ids=["plain", "grid", "two encoders", "dssm"],
)
def test_a_finished_run_that_was_not_tested_is_tested_with_its_model(tmp_path, monkeypatch, more):
    """The checkpoints that hold its best weights may be gone, so the model in the folder is what is measured."""
    output = tmp_path / "run"
    first = finetune_search(settings_of(tmp_path / "tested", **TESTED, **more))
    before = finetune_search(settings_of(output, **SHORT, **more))
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    kept, old = content(output), read_run(output)
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    results = finetune_search(settings_of(output, **TESTED, **more))
    for name in ("test", "cells"):
        assert (name in results) == (name in first)
    assert results["test"] == pytest.approx(first["test"], abs=1e-5)
    for cell, figures in first.get("cells", {}).items():
        assert results["cells"][cell] == pytest.approx(figures, abs=1e-5)
    assert [one["metric_name"] for one in results["metrics"]] == [one["metric_name"] for one in first["metrics"]]
    now, run = content(output), read_run(output)
    assert {name for name in now if now[name] != kept.get(name)} == {Path("run.json"), Path("README.md")}
    assert run.pop("results") == results
    assert all(results[name] == value for name, value in before.items() if name != "metrics")
    assert run["config"]["validation"].pop("test")
    assert not old["config"]["validation"].pop("test")
    assert run == {name: value for name, value in old.items() if name != "results"}
    assert "recall_at_100" in (output / "README.md").read_text()


def test_a_kill_while_a_finished_run_is_tested_leaves_it_whole(teacher, tmp_path, monkeypatch):
    output = copied(teacher, tmp_path)
    kept = content(output)

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rexbert_hf.retrieval.training.evaluator.exact_top_k", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune_search(settings_of(output, **TESTED))
    assert content(output) == kept
    with monkeypatch.context() as patch:
        patch.setattr(search_finish, "write_card", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune_search(settings_of(output, **TESTED))
    figures = read_run(output)["results"]["test"]
    monkeypatch.setattr(SearchEvaluator, "__call__", lambda *args: pytest.fail("measured again"))
    assert finetune_search(settings_of(output, **TESTED))["test"] == figures
    assert "recall_at_100" in (output / "README.md").read_text(), "the card that the kill kept from being written"
    last = content(output)
    finetune_search(settings_of(output, **TESTED))
    assert content(output) == last, "nothing is left to be done"


def test_a_finished_distillation_that_was_not_tested_asks_its_teacher_again(teacher, tmp_path, monkeypatch):
    first = distil_search(distil_settings(tmp_path / "tested", teacher, **TESTED))
    output = tmp_path / "run"
    distil_search(distil_settings(output, teacher, **SHORT))
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    results = distil_search(distil_settings(output, teacher, **TESTED))
    for name in ("test", "teacher_test", "kept_recall@100"):
        assert results[name] == pytest.approx(first[name], abs=1e-4)
    assert read_run(output)["results"] == results
    assert not (output / "cache").exists()


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
