"""Search recipes end to end on the sample shop with a tiny model: results, resume, distillation, re-ranker, errors."""

from __future__ import annotations

import dataclasses
import json
import runpy
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from search_cases import TEXTS, tiny_data
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from rexbert_hf.catalog import load_sample
from rexbert_hf.hub import read_run
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.training import distil as distil_module
from rexbert_hf.retrieval.training.biencoder import load_biencoder
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.evaluator import SearchEvaluator
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.reranker import RerankerSettings, RerankerTrainer, finetune_reranker, reranker_rows
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer
from rexbert_hf.settings import SettingsError, load_settings
from rexbert_hf.training.checkpoint import last_complete_checkpoint, seal, verify
from rexbert_hf.training.interruption import TrainingInterrupted
from rexbert_hf.training.reproducing import NonFiniteLossError

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
TINY = {
    "data.sample_size": "150",
    "model.vocab_size": "512",
    "model.max_tokens": "16",
    "rows.batch_size": "16",
    "trainer.epochs": "2",
    "trainer.bf16": "false",
    "trainer.cpu_threads": "1",
    "trainer.use_cpu": "true",
    "trainer.logging_steps": "1",
}


def settings_of(output, **more):
    words = {**TINY, "output_dir": str(output), **{name.replace("__", "."): value for name, value in more.items()}}
    return load_settings(FinetuneSettings, CONFIGS / "finetune_search.yaml", list(words.items()))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A finished run."""
    output = tmp_path_factory.mktemp("teacher") / "run"
    return output, finetune_search(settings_of(output, trainer__epochs="4"))


def test_a_run_learns_and_leaves_a_model_a_card_and_a_run_file(teacher):
    output, results = teacher
    assert results["last_loss"] < results["first_loss"]
    best = max(entry["recall@100"] for entry in results["validation"])
    assert results["test"]["recall@10"] > 0.1
    assert best >= results["validation_before"]
    run = read_run(output)
    assert run["results"]["test"] == results["test"]
    assert run["config"]["loss"]["name"] == "ranking"
    card = (output / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card
    assert "recall@100" in card
    assert SentenceTransformer(str(output)).encode_query(["red mug"]).shape == (1, 64)
    left = {path.name for path in output.iterdir()}
    assert not {"best", "eval"} & left
    assert not [name for name in left if name.startswith((".", "negatives"))]


def test_a_finished_run_is_left_as_it_is(teacher, monkeypatch):
    output, results = teacher
    monkeypatch.setattr(SearchTrainer, "train", lambda self: pytest.fail("trained again"))
    assert finetune_search(settings_of(output, trainer__epochs="4"))["test"] == results["test"]


def own_pairs(folder):
    """The sample shop in files, as a user's own."""
    load_sample("query_products", size=150).to_parquet(str(folder / "pairs.parquet"))
    load_sample("products", size=150).to_parquet(str(folder / "products.parquet"))
    return {"data__pairs": str(folder / "pairs.parquet"), "data__products": str(folder / "products.parquet")}


def test_data_of_several_files_are_called_by_their_names(tmp_path):
    own = own_pairs(tmp_path)
    load_sample("query_products", size=150).to_parquet(str(tmp_path / "more.parquet"))
    own["data__pairs"] = f"[{own['data__pairs']}, {tmp_path / 'more.parquet'}]"
    finetune_search(settings_of(tmp_path / "run", **own, trainer__max_steps="1"))
    names = f"{tmp_path / 'pairs.parquet'}, {tmp_path / 'more.parquet'}"
    run = read_run(tmp_path / "run")
    assert run["data"][0]["name"] == names
    assert run["results"]["metrics"][0]["dataset_name"] == f"test queries of {names}"


def retrain(folder):
    """Other weights under the same name."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, folder / "model.safetensors")


def test_a_run_is_finished_only_with_the_same_data_and_base(teacher, tmp_path, monkeypatch):
    base = Path(shutil.copytree(teacher[0], tmp_path / "base", ignore=shutil.ignore_patterns("checkpoint-*")))
    more = {**own_pairs(tmp_path), "model__base": str(base), "trainer__max_steps": "2", "validation__test": "false"}
    first = finetune_search(settings_of(tmp_path / "run", **more))
    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "train", lambda self: pytest.fail("trained again"))
        # What is only logged, kept or measured afterwards makes no other run.
        same = {"trainer__logging_steps": "5", "trainer__save_total_limit": "1", "trainer__report_to": "none"}
        assert finetune_search(settings_of(tmp_path / "run", **more, **same)) == first
    weights = (base / "model.safetensors").read_bytes()
    retrain(base)
    with pytest.raises(ValueError, match=r"another plan \(base: "):
        finetune_search(settings_of(tmp_path / "run", **more))
    (base / "model.safetensors").write_bytes(weights)
    assert finetune_search(settings_of(tmp_path / "run", **more)) == first
    rows = load_sample("query_products", size=150).select(range(100))
    rows.to_parquet(str(tmp_path / "pairs.parquet"))
    with pytest.raises(ValueError, match=r"another plan \(data: "):
        finetune_search(settings_of(tmp_path / "run", **more))


def test_a_stopped_run_goes_on_under_other_logging(tmp_path, monkeypatch):
    more = {"trainer__max_steps": "4", "trainer__save_epochs": "0.1", "validation__test": "false"}
    stock = SearchTrainer.training_step

    def interrupted(self, *args, **kwargs):
        loss = stock(self, *args, **kwargs)
        self._stop.received = signal.SIGTERM
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted):
            finetune_search(settings_of(tmp_path, **more))
    more |= {"trainer__logging_steps": "3", "trainer__cpu_threads": "2", "trainer__save_total_limit": "1"}
    assert finetune_search(settings_of(tmp_path, **more))["resumed_from_step"] == 1
    state = json.loads((last_complete_checkpoint(tmp_path).path / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 3]


def test_the_best_model_is_the_one_that_stays(tmp_path, monkeypatch):
    figures = [0.1, 0.9, 0.2, 0.3, 0.25, 0.1, 0.1]
    kept = {}

    def score(self, model, output_path=None, epoch=-1, steps=-1):
        figure = figures.pop(0)
        if figure == 0.9:
            kept.update({name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_recall@100": figure}

    def init(self, *args, **kwargs):
        self.primary_metric, self.name = "validation_recall@100", "validation"
        self.queries = self.products = np.zeros(1)

    monkeypatch.setattr("rexbert_hf.retrieval.training.finetune.SearchEvaluator.__call__", score)
    monkeypatch.setattr("rexbert_hf.retrieval.training.finetune.SearchEvaluator.__init__", init)
    settings = settings_of(
        tmp_path,
        trainer__epochs="6",
        trainer__save_epochs="1",
        validation__every_epochs="1",
        validation__patience="2",
        validation__test="false",
        trainer__bf16="true",
    )
    stock = SearchTrainer.take_over
    with monkeypatch.context() as patch:
        patch.setattr("rexbert_hf.retrieval.training.finetune.finish", None)
        with pytest.raises(TypeError, match="not callable"):
            finetune_search(settings)
    # Killed between its stop and its end, it takes no further step, and does not validate again.
    figures[:] = [0.1]  # before training, for the report
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "take_over", lambda self, found: (taken.append(self.model), stock(self, found))[1])
        results = finetune_search(settings)
    assert ["forward" in vars(model) for model in taken] == [False], "test figures are not those of bfloat16"
    # Before, then after epochs 1 to 3: .9 is the best, two worse ones stop the run.
    assert [entry["recall@100"] for entry in results["validation"]] == [0.9, 0.2, 0.3]
    assert results["epochs"] == pytest.approx(3, abs=0.2)
    assert results["resumed_from_step"] == results["steps"]
    weights = SentenceTransformer(str(tmp_path)).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in kept.items())
    # Finished, it has given its copy of the best model away: the last step's must not take that one's place.
    (tmp_path / "run.json").unlink()
    figures[:] = [0.1]
    with pytest.raises(ValueError, match=r"best is not there.*another output_dir; the model in this one stays"):
        finetune_search(settings)
    again = SentenceTransformer(str(tmp_path)).state_dict()
    assert all(torch.equal(again[name], value) for name, value in kept.items())


def test_the_best_model_of_steps_that_a_kill_undid_is_not_taken(tmp_path, monkeypatch, caplog):
    figures, last = [0.1, 0.5, 0.9], {}

    def score(self, model, output_path=None, epoch=-1, steps=-1):
        last.update({name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_recall@100": figures.pop(0)}

    def init(self, *args, **kwargs):
        self.primary_metric, self.name = "validation_recall@100", "validation"
        self.queries = self.products = np.zeros(1)

    def killed(self, *args):
        if not figures:
            raise KeyboardInterrupt
        save(self, *args)

    monkeypatch.setattr("rexbert_hf.retrieval.training.finetune.SearchEvaluator.__call__", score)
    monkeypatch.setattr("rexbert_hf.retrieval.training.finetune.SearchEvaluator.__init__", init)
    save, more = SearchTrainer._save_checkpoint, {"trainer__save_epochs": "1", "validation__every_epochs": "1"}
    settings = settings_of(tmp_path, trainer__epochs="3", validation__test="false", **more)
    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "_save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune_search(settings)
    figures[:] = [0.1, 0.4, 0.3]
    results = finetune_search(settings)
    assert [entry["recall@100"] for entry in results["validation"]] == [0.5, 0.4, 0.3]
    assert results["resumed_from_step"] == results["validation"][0]["step"]
    assert "the best by validation (0.5), but of steps that a kill undid" in caplog.text
    weights = SentenceTransformer(str(tmp_path)).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in last.items())


@pytest.mark.parametrize("kind", ["plain", "mined, dropout"])
def test_stopped_and_started_again_is_never_stopped(tmp_path, monkeypatch, kind):
    more = {"trainer__max_steps": "8", "trainer__save_epochs": "0.5", "validation__test": "false"}
    if kind != "plain":
        more |= {
            "rows__mined": "1",
            "mining": "{keep: 4, skip: 1, depth: 20, refresh_epochs: 0.25}",
        }
        more |= {"model__overrides": "{mlp_dropout: 0.1}"}
    finetune_search(settings_of(tmp_path / "whole", **more))
    stock = SearchTrainer.training_step

    def interrupted(self, *args, **kwargs):
        loss = stock(self, *args, **kwargs)
        if self.state.global_step == 4:
            self._stop.received = signal.SIGTERM
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(SearchTrainer, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted):
            finetune_search(settings_of(tmp_path / "cut", **more))
    assert not (tmp_path / "cut" / "run.json").exists()
    finetune_search(settings_of(tmp_path / "cut", **more))
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_another_plan_does_not_resume(tmp_path):
    finetune_search(settings_of(tmp_path, trainer__max_steps="2", validation__test="false"))
    with pytest.raises(ValueError, match=r"another plan \(loss.scale: 20"):
        finetune_search(settings_of(tmp_path, trainer__max_steps="2", validation__test="false", loss__scale="10"))


def test_another_relevant_grade_or_number_of_processes_is_another_run(tmp_path, monkeypatch):
    """What is a positive, and which rows a step has; a run that an earlier version began says neither and goes on."""
    short = {"trainer__max_steps": "2", "validation__test": "false"}
    finetune_search(settings_of(tmp_path, **short))
    with pytest.raises(ValueError, match=r"another plan \(relevant: 1.0 -> 0.33\)"):
        finetune_search(settings_of(tmp_path, **short, data__relevant="0.33"))
    found = last_complete_checkpoint(tmp_path)
    assert (found.info["description"].pop("relevant"), found.info["description"].pop("processes")) == (1.0, 1)
    (tmp_path / "run.json").unlink()
    seal(found.path, found.step, {**found.info, "description": {**found.info["description"], "processes": 2}})
    with pytest.raises(ValueError, match=r"another plan \(processes: 2 -> 1\)"):
        finetune_search(settings_of(tmp_path, **short))
    seal(found.path, found.step, found.info)
    assert finetune_search(settings_of(tmp_path, **short))["resumed_from_step"] == 2


@pytest.mark.parametrize(
    "more",
    [
        {"loss__name": "hinge", "rows__hard": "3", "rows__random": "4", "model__shared": "false"},
        {"loss__name": "cosent", "model__pooling": "cls"},
        {"loss__cached": "true", "loss__symmetric": "0.3", "rows__made_up": "0.3", "rows__typos": "0.2"},
        {"model__preset": "dssm", "model__overrides": "{dimensions: 32}"},
        {"trainer__max_minutes": "0.0001"},
    ],
    ids=lambda more: next(iter(more.values())),
)
def test_every_loss_and_encoder_trains(tmp_path, more):
    results = finetune_search(settings_of(tmp_path, trainer__max_steps="6", **more))
    assert np.isfinite(results["last_loss"])
    assert 0 <= results["test"]["recall@100"] <= 1
    if "trainer__max_minutes" in more:
        assert results["steps"] == 1


@pytest.mark.parametrize("cached", ["false", "true"])
def test_a_finished_dssm_is_fine_tuned_again(tmp_path, cached):
    """It is a `StaticEmbedding` then, whose rows come without padding and mask."""
    short = {"trainer__max_steps": "3", "validation__test": "false"}
    finetune_search(settings_of(tmp_path / "first", model__preset="dssm", model__overrides="{dimensions: 32}", **short))
    more = {**short, "loss__cached": cached, "loss__block_size": "3", "model__base": str(tmp_path / "first")}
    assert np.isfinite(finetune_search(settings_of(tmp_path / "again", **more))["last_loss"])
    first, again = (SentenceTransformer(str(tmp_path / run))[0].embedding.weight for run in ("first", "again"))
    assert not torch.equal(first, again)


def distil_settings(output, teacher, **more):
    words = {name.replace("model.", "student."): value for name, value in TINY.items()}
    words |= {"output_dir": str(output), "teacher": str(teacher), "rows.batch_size": "64", "rows.retrieved": "5"}
    words |= {"student.preset": "tiny", "student.overrides": "{hidden_size: 32}"}
    words |= {name.replace("__", "."): value for name, value in more.items()}
    return load_settings(DistilSettings, CONFIGS / "distil_from_scratch.yaml", list(words.items()))


def test_a_gradient_that_is_no_number_reaches_no_weight(monkeypatch, tmp_path):
    made = []

    def load(*args):
        model = load_biencoder(*args)
        made.append((model, {name: weight.clone() for name, weight in model.state_dict().items()}))
        next(model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
        return model

    monkeypatch.setattr("rexbert_hf.retrieval.training.finetune.load_biencoder", load)
    with pytest.raises(NonFiniteLossError, match="the gradient's norm is nan at step 1"):
        finetune_search(settings_of(tmp_path / "run"))
    ((model, before),) = made
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_distillation_learns_the_teacher_and_asks_it_once(teacher, tmp_path, monkeypatch):
    cache = {"cache_dir": str(tmp_path / "cache"), "trainer__epochs": "3"}
    results = distil_search(distil_settings(tmp_path / "one", teacher[0], **cache))
    assert results["last_loss"] < 0.7 * results["first_loss"]
    # The teacher's figures come from its cached vectors.
    assert results["teacher_test"]["recall@10"] == pytest.approx(teacher[1]["test"]["recall@10"], abs=1e-6)
    assert results["kept_recall@100"] > 0.3
    assert SentenceTransformer(str(tmp_path / "one")).encode(["mug"]).shape == (1, 32)
    monkeypatch.setattr(distil_module, "SentenceTransformer", lambda path: pytest.fail("the teacher was loaded"))
    again = distil_search(distil_settings(tmp_path / "two", teacher[0], **cache))
    assert again["test"] == results["test"]


FROM_LAYERS = {"trainer__max_steps": "2", "validation__test": "false", "student__overrides": "{}"}


@pytest.mark.parametrize(("shared", "student"), [("false", "true"), ("false", "false"), ("true", "false")])
def test_layers_of_a_teacher_with_two_encoders_or_one(tmp_path, shared, student):
    more = {"trainer__max_steps": "2", "validation__test": "false"}
    finetune_search(settings_of(tmp_path / "teacher", **more, model__shared=shared, model__pooling="cls"))
    words = {**FROM_LAYERS, "teacher_layers": "[0]", "student__shared": student}
    distil_search(distil_settings(tmp_path / "student", tmp_path / "teacher", **words))
    model = SentenceTransformer(str(tmp_path / "student"))
    assert isinstance(model[0], Router) == (student == "false")
    modes = [part.pooling_mode for part in model.modules() if isinstance(part, Pooling)]
    assert modes == ["mean"] * (1 if student == "true" else 2), "the student's own setting"
    encoders = [part for part in model.modules() if isinstance(part, Transformer)]
    assert all(part.auto_model.config.num_hidden_layers == 1 for part in encoders)


def test_a_student_that_stopped_early_is_not_trained_on(teacher, tmp_path, monkeypatch):
    """Killed after the training: what starts again reads in the log that no better model came."""
    more = {"trainer__epochs": "4", "validation__patience": "1", "validation__test": "true"}
    figures = iter([0.5, 0.4])
    stock = SearchEvaluator.__call__

    def scripted(self, model, *args, **options):
        found = stock(self, model, *args, **options)
        return found if not self.name else {**found, "validation_recall@100": next(figures)}

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchEvaluator, "__call__", scripted)
    with monkeypatch.context() as patch:
        patch.setattr(distil_module, "_tests", killed)
        with pytest.raises(KeyboardInterrupt):
            distil_search(distil_settings(tmp_path / "run", teacher[0], **more))
    stopped_at = last_complete_checkpoint(tmp_path / "run").step
    results = distil_search(distil_settings(tmp_path / "run", teacher[0], **more))
    assert results["steps"] == results["resumed_from_step"] == stopped_at
    assert [entry["recall@100"] for entry in results["validation"]] == [0.5, 0.4]


def test_other_blocks_of_a_distillation_are_another_run(teacher, tmp_path):
    """Dropout falls otherwise in them; a run that an earlier version began does not say what it had, and goes on."""
    more = {"trainer__max_steps": "1", "validation__test": "false"}
    first = distil_search(distil_settings(tmp_path, teacher[0], **more))
    for name, value, told in (("block_size", "8", "64 -> 8"), ("cached", "true", "None -> True")):
        with pytest.raises(ValueError, match=rf"another plan \({name}: {told}\)"):
            distil_search(distil_settings(tmp_path, teacher[0], **more, **{name: value}))
    found = last_complete_checkpoint(tmp_path)
    old = {name: value for name, value in found.info["description"].items() if name not in ("block_size", "cached")}
    seal(found.path, found.step, {**found.info, "description": old})
    (tmp_path / "run.json").unlink()
    assert distil_search(distil_settings(tmp_path, teacher[0], **more))["steps"] == first["steps"]


def test_a_distillation_that_goes_on_with_other_pairs_says_so(teacher, tmp_path, caplog):
    """Earlier versions listed pairs of products without text too."""
    own = own_pairs(tmp_path)
    more = {**own, "trainer__max_steps": "2", "trainer__save_epochs": "0.01", "validation__test": "false"}
    titles = load_sample("products", size=150)
    empty = titles.map(lambda row: {name: None for name in row if name != "product_id"} if row == titles[0] else row)
    empty.to_parquet(own["data__products"])
    distil_search(distil_settings(tmp_path / "run", teacher[0], **more))
    (tmp_path / "run" / "run.json").unlink()
    distil_search(distil_settings(tmp_path / "run", teacher[0], **more))
    assert "of an earlier version" not in caplog.text
    for path in (tmp_path / "run").glob("checkpoint-*"):
        info = verify(path).info
        for name in ("block_size", "cached"):
            del info["description"][name]
        seal(path, int(path.name.rpartition("-")[2]), info)
    (tmp_path / "run" / "run.json").unlink()
    distil_search(distil_settings(tmp_path / "run", teacher[0], **more))
    assert "checkpoint-2 is of an earlier version, whose pairs held products without text" in caplog.text


def test_a_retrained_teacher_is_another_run(teacher, tmp_path):
    copied = Path(shutil.copytree(teacher[0], tmp_path / "teacher", ignore=shutil.ignore_patterns("checkpoint-*")))
    more = {"trainer__max_steps": "2", "validation__test": "false", "cache_dir": str(tmp_path / "cache")}
    distil_search(distil_settings(tmp_path / "run", copied, **more))
    retrain(copied)
    with pytest.raises(ValueError, match=r"another plan \(teacher: "):
        distil_search(distil_settings(tmp_path / "run", copied, **more))


def test_what_runs_in_one_process_says_so(teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="distillation runs in one process, and 2 were asked for"):
        distil_search(distil_settings(tmp_path, teacher[0]))


def test_a_student_from_teacher_layers(teacher, tmp_path):
    settings = distil_settings(tmp_path, teacher[0], **FROM_LAYERS, teacher_layers="[0]")
    distil_search(settings)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (1, 64)
    # The rest of the student's settings holds for the teacher's layers too.
    pooling = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    assert "mean" in json.dumps(pooling.get("pooling_mode", "mean"))
    with pytest.raises(ValueError, match=r"another plan .*teacher_layers"):
        distil_search(distil_settings(tmp_path, teacher[0], **FROM_LAYERS, teacher_layers="[0, 1]"))
    with pytest.raises(ValueError, match="begin with 0"):
        distil_search(distil_settings(tmp_path / "other", teacher[0], **FROM_LAYERS, teacher_layers="[1]"))
    with pytest.raises(SettingsError, match=r"student\.overrides and student\.tokenizer are for a new student"):
        distil_settings(tmp_path, teacher[0], teacher_layers="[0]")
    with pytest.raises(SettingsError, match="set one"):
        distil_settings(tmp_path, teacher[0], teacher_layers="[1]", student__overrides="{}", student__base="x")


def test_a_teacher_that_is_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"modules\.json"):
        distil_search(distil_settings(tmp_path / "out", tmp_path / "empty"))


def test_a_student_that_was_not_made(tmp_path, teacher):
    missing = str(tmp_path / "output" / "qpi_student")
    with pytest.raises(FileNotFoundError, match=r"student\.base: .*qpi_student.*distil_from_scratch\.yaml needs none"):
        distil_search(distil_settings(tmp_path / "out", teacher[0], student__base=missing, student__overrides="{}"))


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a recipe as `python recipes/NAME.py WORDS` does; exit status, stdout, stderr."""

    def start(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / "recipes" / name), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return start


def test_recipes_print_figures_and_end_with_status_0(run, teacher, tmp_path):
    flat = [word for name, value in TINY.items() for word in (f"--{name}", value)]
    status, out, _ = run("finetune_search.py", *flat, "--output_dir", str(tmp_path / "a"), "--trainer.max_steps", "2")
    assert status == 0
    test = json.loads((tmp_path / "a" / "run.json").read_text())["results"]["test"]
    assert f"test: recall@10 {test['recall@10']:.4f} (judged@10 {test['judged@10']:.4f}, condensed " in out
    for name in ("recall@10", "recall@100", "ndcg@10"):
        assert f", condensed {test[f'condensed_{name}']:.4f})" in out
    status, out, _ = run(
        "finetune_reranker.py", "--base", str(teacher[0]), "--output_dir", str(tmp_path / "b"), "--data.sample_size",
        "60", "--trainer.max_steps", "2", "--trainer.use_cpu", "true", "--test_queries", "3",
    )  # fmt: skip
    assert status == 0
    assert "nDCG@10 of the judged products" in out
    assert "pipeline_tag: text-ranking" in (tmp_path / "b" / "README.md").read_text()


def reranker_of(output, base, **more):
    words = {"base": str(base), "output_dir": str(output), "data.sample_size": "150", "batch_size": "16", "seed": "3"}
    words |= {"trainer.use_cpu": "true", "trainer.bf16": "false", "trainer.max_steps": "8", "test_queries": "3"}
    words |= {name.replace("__", "."): value for name, value in more.items()}
    return load_settings(RerankerSettings, CONFIGS / "finetune_reranker.yaml", list(words.items()))


def test_a_reranker_that_was_stopped_is_never_stopped_and_finishes_once(teacher, tmp_path, monkeypatch):
    more = {"trainer__save_epochs": "0.01", "trainer__weight_decay": "0.1", "trainer__warmup": "0.5"}
    whole = finetune_reranker(reranker_of(tmp_path / "whole", teacher[0], **more))
    rates = []
    stock = RerankerTrainer.training_step

    def interrupted(self, *args, **kwargs):
        rates.append(self.optimizer.param_groups[0]["lr"])
        loss = stock(self, *args, **kwargs)
        if self.state.global_step == 4:
            self._stop.received = signal.SIGTERM
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(RerankerTrainer, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted):
            finetune_reranker(reranker_of(tmp_path / "cut", teacher[0], **more))
    # The warm-up is half of the eight steps, not of the epoch; the rate of a step is that of the steps before it.
    assert rates[:5] == pytest.approx([5e-4 * share for share in (0.125, 0.125, 0.25, 0.5, 0.75)])
    torch.manual_seed(99)
    assert finetune_reranker(reranker_of(tmp_path / "cut", teacher[0], **more))["resumed_from_step"] == 5
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    monkeypatch.setattr(RerankerTrainer, "train", lambda self: pytest.fail("trained again"))
    again = finetune_reranker(reranker_of(tmp_path / "whole", teacher[0], **more))
    assert again["ndcg@10_of_judged"] == whole["ndcg@10_of_judged"]


def test_random_zeros_of_a_reranker_are_new_and_have_text():
    data = dataclasses.replace(tiny_data(), texts=[*TEXTS[:-1], ""])
    rows = reranker_rows(data, 50.0, seed=0).to_list()
    judged = {("mug", "red mug"), ("mug", "blue plate"), ("plate", "blue plate"), ("lamp", "green lamp shade")}
    judged |= {("pot", "steel pot with lid")}
    assert {(row["query"], row["product"]) for row in rows[:5]} == judged
    zeros = {(row["query"], row["product"]) for row in rows[5:]}
    assert len(rows) > 100
    assert not zeros & {*judged, ("mug", "Red  Mug")}
    assert "" not in {product for _, product in zeros}
    assert ("mug", "green lamp shade") in zeros
    data = dataclasses.replace(data, neither=np.array([[0, 3]]))
    assert ("mug", "green lamp shade") not in {
        (row["query"], row["product"]) for row in reranker_rows(data, 50.0, seed=0).to_list()
    }


@pytest.mark.parametrize(
    ("grades", "relevant", "expected"),
    [
        ([1.0, 0.66, 0.33, 0.0], 1.0, [1.0, 0.66, 0.33, 0.0]),
        ([1.0, 2.33, 3.0], 2.33, [0.0, 0.665, 1.0]),  # 1 to 3: 1 is a no
        ([2.4, 3.0], 2.33, [0.8, 1.0]),  # nobody said no
        ([3.0, 3.0], 2.33, [1.0, 1.0]),
        ([2.0, 2.0], 2.33, [1.0, 1.0]),
        ([1.0, 1.0], 1.0, [1.0, 1.0]),
        ([0.0, 0.0], 1.0, [0.0, 0.0]),
    ],
)
def test_a_rerankers_targets_are_far_from_random_zeros(grades, relevant, expected):
    judged = Judgements.from_pairs([0] * len(grades), range(1, len(grades) + 1), grades, 4)
    data = dataclasses.replace(tiny_data(), judged=judged, relevant=relevant)
    assert reranker_rows(data, 0.0, seed=0)["label"][:] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--loss.nam", "x"], 2, "unknown"),
        (["--rows.batch_size", "1"], 2, "batch_size must be at least 2"),
        (["--data.pairs", "nowhere.csv"], 1, "nowhere.csv"),
        (["--rows.mined", "1", "--loss.name", "hinge"], 2, "rows.mined is for the ranking loss"),
        (["--rows.made_up", ".2", "--loss.name", "hinge"], 2, "with loss.name hinge set it to 0"),
        (["--rows.made_up", ".2", "--loss.name", "cosent"], 2, "rows.made_up is for the ranking loss"),
        (["--mining.keep", "5"], 2, "mining is set, but no row would take what it finds: set rows.mined to 1 or more"),
        (["--mining.keep", "5", "--loss.name", "cosent"], 2, "use loss.name ranking or hinge, or leave mining out"),
        (["--mining.keep", "5", "--loss.name", "hinge", "--rows.hard", "0"], 2, "set rows.hard above 0"),
        (["--push_to_hub", "no name"], 2, "push_to_hub"),
        (["--loss.name", "cosent", "--loss.cached"], 2, "loss.cached does not go with loss.name cosent"),
    ],
)
def test_errors_are_one_line(run, tmp_path, words, status, message):
    code, _, err = run("finetune_search.py", "--output_dir", str(tmp_path), *words)
    assert code == status
    assert message in err
    assert "Traceback" not in err


def test_the_home_depot_configurations_can_be_read():
    settings = load_settings(FinetuneSettings, CONFIGS / "finetune_homedepot.yaml")
    assert settings.data.relevant == 2.33
    assert settings.data.split_rule == "sha1_mod_10"
    assert settings.trainer.max_minutes is not None
    assert settings.trainer.max_minutes < 60
    assert load_settings(DistilSettings, CONFIGS / "distil_homedepot.yaml").data == settings.data
