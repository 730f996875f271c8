"""A recipe writes into its own folder only: another run's, and a model's, stay as they are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from rexbert_hf.corpus.pipeline import curate
from rexbert_hf.corpus.settings import CurateSettings
from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.finetune_task import finetune_task
from rexbert_hf.evaluation.settings import EvaluateSettings, FinetuneTaskSettings
from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.phrases.mining_run import MineRun, run_mining
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.pretraining.run import make_folder
from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.pretraining.tokenizer_run import TextSource, TokenizerRun, make_tokenizer
from rexbert_hf.reproduction import ReproductionSettings, reproduce
from rexbert_hf.retrieval.pairs.run import build_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, run_build_index
from rexbert_hf.retrieval.serving.onnx_recipe import ExportOnnxRun, run_export_onnx
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.grid_choice import ChooseRun, choose_submodel
from rexbert_hf.retrieval.training.qpi import run_qpi
from rexbert_hf.retrieval.training.qpi_settings import QPISettings
from rexbert_hf.retrieval.training.reranker import RerankerSettings, finetune_reranker
from rexbert_hf.settings import load_settings, to_dict
from rexbert_hf.training import checkpoint as ckpt

RECIPES_FOLDER = Path(__file__).parents[2] / "recipes"


def configured(kind, name, folder):
    return load_settings(kind, RECIPES_FOLDER / "configs" / f"{name}.yaml", [("output_dir", str(folder))])


RECIPES = {
    "choose": lambda folder: (choose_submodel, ChooseRun(output_dir=folder)),
    "curate": lambda folder: (curate, configured(CurateSettings, "curate_sample", folder)),
    "evaluate": lambda folder: (evaluate, EvaluateSettings(models=["bm25"], output_dir=str(folder))),
    "export": lambda folder: (run_export_onnx, ExportOnnxRun(output_dir=folder)),
    "index": lambda folder: (run_build_index, BuildIndexRun(output_dir=folder)),
    "mine": lambda folder: (run_mining, configured(MineRun, "mine_phrases", folder)),
    "pairs": lambda folder: (build_pairs, configured(BuildPairsRun, "build_pairs", folder)),
    "pretrain": lambda folder: (pretrain, configured(PretrainSettings, "quickstart", folder)),
    "reproduce": lambda folder: (reproduce, configured(ReproductionSettings, "reproduce_rexbert", folder)),
    "task": lambda folder: (finetune_task, FinetuneTaskSettings(output_dir=str(folder))),
    "tokenizer": lambda folder: (make_tokenizer, TokenizerRun([TextSource(sample="shop_text")], output_dir=folder)),
}
KEYS = {
    "choose": "latency_ms",
    "curate": "label",
    "evaluate": "resamples",
    "export": "precisions",
    "index": "backend",
    "mine": "positives",
    "pairs": "ratio",
    "pretrain": "phases",
    "reproduce": "claims",
    "task": "task",
    "tokenizer": "vocab_size",
}
FURTHER = (DistilSettings, FinetuneSettings, QPISettings, RerankerSettings, StagedSettings)
"""Settings of the recipes that are not started with `RECIPES`."""
TRAINING = {
    "quickstart": (pretrain, PretrainSettings),
    "qpi": (run_qpi, QPISettings),
    "finetune_search": (finetune_search, FinetuneSettings),
    "distil_search": (distil_search, DistilSettings),
    "finetune_reranker": (finetune_reranker, RerankerSettings),
}
"""Start and settings of recipes that train, by their configurations."""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_folder_of_another_run_is_refused_and_untouched(recipe, tmp_path):
    write_run(tmp_path, config={"lr": 1, "output_dir": str(tmp_path), "model": "m"}, results={})
    (tmp_path / "tokenizer.json").write_text("{}")
    before = contents(tmp_path)
    start, settings = RECIPES[recipe](tmp_path)
    with pytest.raises(ValueError, match=r"holds another run: choose another output_dir$"):
        start(settings)
    assert contents(tmp_path) == before


def test_no_recipe_has_the_key_of_another_ones():
    kinds = {recipe: type(make(Path("out"))[1]) for recipe, make in RECIPES.items()}
    known = {kind.__name__ for kind in (*kinds.values(), *FURTHER)} - {"PretrainSettings"}
    started = {
        name for path in RECIPES_FOLDER.glob("*.py") for name in re.findall(r"parse_args\((\w+)", path.read_text())
    }
    assert started == known | {"RenderCardsSettings"}, "a recipe without a test here"
    for recipe, key in KEYS.items():
        having = {
            kind for kind in (*kinds.values(), *FURTHER) if key in {item.name for item in dataclasses.fields(kind)}
        }
        of_pretraining = {PretrainSettings, StagedSettings, QPISettings}  # one family: their plans tell them apart
        assert having == (of_pretraining if recipe == "pretrain" else {kinds[recipe]})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_knows_its_own_run_and_no_other_recipes(recipe, tmp_path):
    write_run(tmp_path, config=to_dict(RECIPES[recipe](tmp_path)[1]), results={})
    for other, key in KEYS.items():
        if other == recipe:
            check_own_folder(tmp_path, key)
            continue
        with pytest.raises(ValueError, match="another run"):
            check_own_folder(tmp_path, key)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_without_a_run_file_is_refused(recipe, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    start, settings = RECIPES[recipe](tmp_path)
    with pytest.raises(ValueError, match=r"did not make \(config.json\): choose another output_dir"):
        start(settings)
    assert contents(tmp_path) == {"config.json": b"{}"}


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "pytorch_model-00001-of-2.bin", "adapter.safetensors"])
def test_models_and_tokenizers_of_others_are_known_by_any_of_their_files(name, tmp_path):
    (tmp_path / name).touch()
    for recipe in ("tokenizer", "export"):
        start, settings = RECIPES[recipe](tmp_path)
        with pytest.raises(ValueError, match=rf"holds a model that this recipe did not make \({name}\): choose"):
            start(settings)
    check_own_folder(tmp_path, "ratio", writes=[name])
    check_own_folder(tmp_path, "ratio", makes_model=True)


@pytest.mark.parametrize("name", ["lid.model", "embeddings.safetensors", "notes.txt"])
def test_other_files_of_a_users_are_no_model(name, tmp_path):
    (tmp_path / name).touch()
    check_own_folder(tmp_path, "ratio")


@pytest.mark.parametrize(
    ("text", "told"),
    [("", r", line 1: not JSON \(.*\)"), ('{"conf', r", line 1: not JSON \(.*\)"), ("{}", ": no 'config' in it")],
)
def test_a_model_whose_run_file_is_damaged_is_refused_by_that_name(text, told, tmp_path):
    (tmp_path / "run.json").write_text(text)
    (tmp_path / "model.safetensors").touch()
    ending = rf"holds a model \(model.safetensors\) and nothing says whose it is: {tmp_path / 'run.json'}{told}"
    with pytest.raises(ValueError, match=rf"{ending}; restore it, or choose another output_dir$"):
        make_folder(tmp_path)
    check_own_folder(tmp_path, "phases", makes_model=True)


def test_checkpoints_of_others_do_not_make_a_model_ones_own(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "config.json").write_text("{}")
    start, settings = RECIPES["pretrain"](tmp_path)
    with pytest.raises(ValueError, match=r"did not make \(config.json\)"):
        start(settings)
    ckpt.seal(tmp_path / "checkpoint-5", 5)
    make_folder(tmp_path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "0_Transformer/model.safetensors"])
def test_a_folder_with_checkpoints_of_another_trainer_only_is_refused(weights, tmp_path):
    for step in (500, 1000):
        file = tmp_path / f"checkpoint-{step}" / weights
        file.parent.mkdir(parents=True)
        file.write_text("theirs")
    told = (
        rf"{tmp_path} holds a checkpoint that this recipe did not write \(checkpoint-1000 has no {ckpt.MARKER}\):"
        " choose another output_dir, or move it away$"
    )
    for name, (start, kind) in TRAINING.items():
        with pytest.raises(ValueError, match=told):
            start(configured(kind, name, tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-500", "checkpoint-1000"}
    own = tmp_path / "checkpoint-3"
    own.mkdir()
    (own / ckpt.MARKER).write_text("{")  # torn
    make_folder(tmp_path)


def test_checkpoints_of_another_trainer_stay_beside_what_writes_none(tmp_path):
    theirs = tmp_path / "checkpoint-500"
    theirs.mkdir()
    (theirs / "model.safetensors").write_text("theirs")
    for key in {*KEYS.values()} - {"phases"}:
        check_own_folder(tmp_path, key)


def test_the_model_that_is_read_is_not_written_over(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    _, own = RECIPES["pretrain"](tmp_path)
    own.model.init_from = str(tmp_path)
    for start, settings in (
        (choose_submodel, ChooseRun(model=str(tmp_path), output_dir=tmp_path)),
        (run_export_onnx, ExportOnnxRun(model=f"{tmp_path}/", output_dir=tmp_path)),
        (finetune_task, FinetuneTaskSettings(model=str(tmp_path), output_dir=str(tmp_path))),
        (pretrain, own),
    ):
        with pytest.raises(ValueError, match="is the folder of the model itself: choose another output_dir"):
            start(settings)
    assert contents(tmp_path) == {"modules.json": b"[]"}


def test_what_a_kill_or_an_earlier_version_left_passes(tmp_path):
    check_own_folder(tmp_path / "none", "ratio")
    (tmp_path / "run.json").write_text("{")  # damaged
    check_own_folder(tmp_path, "ratio")
    (tmp_path / "spike-step-12-rank-0.safetensors").touch()  # of a step that stopped a run
    check_own_folder(tmp_path, "ratio")
    (tmp_path / "modules.json").write_text("[]")
    check_own_folder(tmp_path, "latency_ms", makes_model=True)
    write_run(tmp_path, config={"ratio": "1:4"}, results={})
    check_own_folder(tmp_path, "ratio")
