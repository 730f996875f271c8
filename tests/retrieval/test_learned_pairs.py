"""A model of pairs that somebody named that is about to be measured or trained on those of the sample shop."""

from __future__ import annotations

import logging

import pytest

from rexbert_hf.hub import write_run
from rexbert_hf.retrieval.serving import onnx_recipe
from rexbert_hf.retrieval.serving.onnx_recipe import ExportOnnxRun
from rexbert_hf.retrieval.training import distil, grid_choice, reranker
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.grid_choice import ChooseRun
from rexbert_hf.retrieval.training.reranker import RerankerSettings
from rexbert_hf.retrieval.training.search_data import SearchDataSettings


class LoadedError(Exception):
    """The recipe has come to its data."""


def to_the_data(data):
    raise LoadedError


RECIPES = {
    "choose_submodel": (grid_choice, grid_choice.choose_submodel, ChooseRun, "model"),
    "export_onnx": (onnx_recipe, onnx_recipe.run_export_onnx, ExportOnnxRun, "model"),
    "distil_search": (distil, distil.distil_search, DistilSettings, "teacher"),
    "finetune_reranker": (reranker, reranker.finetune_reranker, RerankerSettings, "base"),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("config", "pairs", "told"),
    [
        ({"data": {"pairs": "output/pairs/pairs"}}, None, ["output/pairs/pairs"]),
        ({"data": {"pairs": ["a.csv", "b.csv"]}}, None, ["a.csv, b.csv"]),
        ({"data": {"pairs": "output/pairs/pairs"}}, "pairs.csv", []),
        ({"data": {"pairs": None}}, None, []),
        ({"phases": []}, None, []),
        (None, None, []),
    ],
)
def test_pairs_of_the_sample_for_a_model_of_ones_own(tmp_path, monkeypatch, caplog, recipe, config, pairs, told):
    module, run, kind, key = RECIPES[recipe]
    model = tmp_path / "model"
    model.mkdir()
    if config is None:
        (model / "run.json").write_text("{")
    else:
        write_run(model, config=config, results={})
    monkeypatch.setattr(module, "load_search_data", to_the_data)
    settings = kind(**{key: str(model), "data": SearchDataSettings(pairs=pairs), "output_dir": tmp_path / "out"})
    with caplog.at_level(logging.WARNING), pytest.raises(LoadedError):
        run(settings)
    said = [message for message in caplog.messages if "the sample shop" in message]
    assert said == [
        f"queries and products are the built-in ones of the sample shop, and {model} was trained on {pairs_before}:"
        " set --data.pairs and --data.products as its run.json has them"
        for pairs_before in told
    ]
