"""A recipe writes into its own folder only: another run's, and a model's, stay as they are."""

from __future__ import annotations

import pytest

from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.pretraining.tokenizer_run import TextSource, TokenizerRun, make_tokenizer
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, run_build_index
from rexbert_hf.retrieval.serving.onnx_recipe import ExportOnnxRun, run_export_onnx
from rexbert_hf.retrieval.training.grid_choice import ChooseRun, choose_submodel
from rexbert_hf.settings import to_dict

RECIPES = {
    "choose": lambda folder: (choose_submodel, ChooseRun(output_dir=folder)),
    "export": lambda folder: (run_export_onnx, ExportOnnxRun(output_dir=folder)),
    "evaluate": lambda folder: (evaluate, EvaluateSettings(models=["bm25"], output_dir=str(folder))),
    "index": lambda folder: (run_build_index, BuildIndexRun(output_dir=folder)),
    "tokenizer": lambda folder: (make_tokenizer, TokenizerRun([TextSource(sample="shop_text")], output_dir=folder)),
}
KEYS = {
    "choose": "latency_ms",
    "export": "precisions",
    "evaluate": "resamples",
    "index": "backend",
    "tokenizer": "vocab_size",
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_folder_of_another_run_is_refused_and_untouched(recipe, tmp_path):
    write_run(tmp_path, config={"phases": [], "output_dir": str(tmp_path), "model": "m"}, results={})
    (tmp_path / "tokenizer.json").write_text("{}")
    before = contents(tmp_path)
    start, settings = RECIPES[recipe](tmp_path)
    with pytest.raises(ValueError, match=r"holds another run: choose another output_dir$"):
        start(settings)
    assert contents(tmp_path) == before


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


def test_the_model_that_is_read_is_not_written_over(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    for start, settings in (
        (choose_submodel, ChooseRun(model=str(tmp_path), output_dir=tmp_path)),
        (run_export_onnx, ExportOnnxRun(model=f"{tmp_path}/", output_dir=tmp_path)),
    ):
        with pytest.raises(ValueError, match="is the folder of the model itself: choose another output_dir"):
            start(settings)
    assert contents(tmp_path) == {"modules.json": b"[]"}


def test_what_a_kill_or_an_earlier_version_left_passes(tmp_path):
    check_own_folder(tmp_path / "none", "ratio")
    (tmp_path / "run.json").write_text("{")  # damaged
    check_own_folder(tmp_path, "ratio")
    (tmp_path / "loss-step-12-rank-0.safetensors").touch()  # of a step that stopped a run
    check_own_folder(tmp_path, "ratio")
    (tmp_path / "modules.json").write_text("[]")
    check_own_folder(tmp_path, "latency_ms", makes_model=True)
    write_run(tmp_path, config={"ratio": "1:4"}, results={})
    check_own_folder(tmp_path, "ratio")
