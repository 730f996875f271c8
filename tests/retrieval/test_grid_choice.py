"""Choosing a sub-model: which cell a budget allows, what is measured, what is saved; the grid through the recipe."""

from __future__ import annotations

import functools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer
from transformers import ModernBertModel

from rexbert_hf.catalog import load_sample
from rexbert_hf.hub import push_run, read_run
from rexbert_hf.hub.push import files_of_run
from rexbert_hf.retrieval.training import grid_choice
from rexbert_hf.retrieval.training.evaluator import SearchEvaluator
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.grid_choice import METRICS, ChooseRun, choose_submodel
from rexbert_hf.retrieval.training.grid_evaluator import GridEvaluator, means_of, unit
from rexbert_hf.retrieval.training.grid_losses import GridLoss
from rexbert_hf.retrieval.training.grid_measure import CellFigures, NoCellFitsError, choose_cell, measure_cells
from rexbert_hf.retrieval.training.grid_plot import plot_choice, plot_maps
from rexbert_hf.retrieval.training.grid_settings import GridSettings, trained_cells
from rexbert_hf.retrieval.training.search_data import TEST, VALIDATION, SearchDataSettings, load_search_data
from rexbert_hf.settings import from_dict

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from hub_server import TOKEN, HubServer

ROOT = Path(__file__).parents[2]
DATA = {"sample_size": 120}
TRAIN = {
    "data": DATA,
    "model": {"preset": "tiny", "vocab_size": 512, "max_tokens": 16, "overrides": {"num_hidden_layers": 2}},
    "rows": {"batch_size": 16},
    "trainer": {
        "max_steps": 6,
        "use_cpu": True,
        "bf16": False,
        "cpu_threads": 1,
        "learning_rate": 2e-3,
        "logging_steps": 2,
    },
}
GRID = {"layers": [1, 2], "dims": [8, 64]}
CELLS = [(1, 8), (2, 8), (1, 64), (2, 64)]


def cell(layers, dim, p50, size, recall):
    return CellFigures(layers, dim, p50, 2 * p50, size, 1000 * dim, {"recall@100": recall})


MEASURED = [cell(1, 8, 1.0, 50_000, 0.4), cell(1, 64, 1.1, 50_000, 0.45), cell(2, 64, 2.0, 90_000, 0.5)]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({}, "2x64"),
        ({"latency_ms": 2.0}, "2x64"),
        ({"latency_ms": 1.99}, "1x64"),
        ({"latency_ms": 2.0, "percentile": "p99"}, "1x8"),
        ({"memory_mb": 0.06}, "1x8"),
        ({"memory_mb": 0.12}, "1x64"),
    ],
)
def test_the_best_cell_within_the_budget(limits, wanted):
    assert choose_cell(MEASURED, "recall@100", **limits).name == wanted


def test_of_equal_cells_fewest_layers_then_the_smallest():
    """And not the faster by the clock, which chance decides where the machine is at work."""
    equal = [cell(2, 64, 0.9, 9, 0.5), cell(1, 64, 1.0, 5, 0.5), cell(1, 8, 1.1, 4, 0.5)]
    assert choose_cell(equal, "recall@100").name == "1x8"


def test_no_cell_within_the_budget_names_the_nearest():
    with pytest.raises(ValueError, match=r"within 0.5 ms \(p50\): the fastest, 1x8 .*takes 1\.00 ms"):
        choose_cell(MEASURED, "recall@100", latency_ms=0.5)
    with pytest.raises(ValueError, match=r"fits into 0.05 MB: the smallest, 1x8 .*takes 0\.1 MB"):
        choose_cell(MEASURED, "recall@100", memory_mb=0.05)
    with pytest.raises(ValueError, match="no metric 'recall@7': choose one of recall@100"):
        choose_cell(MEASURED, "recall@7")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "recal@100"}, "no metric 'recal@100': choose one of recall@10, recall@100"),
        ({"latency_ms": 0}, "latency_ms must be above 0"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        from_dict(ChooseRun, settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bi-encoder fine-tuned over a grid; folder and results."""
    folder = tmp_path_factory.mktemp("grid") / "run"
    settings = from_dict(FinetuneSettings, {**TRAIN, "output_dir": str(folder), "matryoshka": GRID})
    return folder, finetune_search(settings)


def test_the_recipe_trains_all_cells_and_measures_each(trained):
    folder, results = trained
    assert results["last_loss"] < results["first_loss"]
    assert list(results["cells"]) == ["1x8", "2x8", "1x64", "2x64"]
    assert results["test"] == results["cells"]["2x64"]
    model = SentenceTransformer(str(folder))
    assert trained_cells(model) == CELLS
    data = load_search_data(from_dict(SearchDataSettings, DATA))
    whole = SearchEvaluator(data, data.of(TEST))(model)
    assert whole["recall@10"] == pytest.approx(results["test"]["recall@10"])
    assert set(whole) == set(METRICS)
    stock = SentenceTransformer(str(folder / "modernbert"))
    np.testing.assert_allclose(stock.encode(["red mug"]), model.encode(["red mug"]), atol=1e-5)
    run = json.loads((folder / "run.json").read_text())
    assert run["config"]["matryoshka"]["dims"] == [8, 64]


def test_validation_is_the_mean_over_the_cells(trained):
    data = load_search_data(from_dict(SearchDataSettings, DATA))
    model = SentenceTransformer(str(trained[0]))
    found = GridEvaluator(CELLS, data, data.of(VALIDATION), name="validation")(model)
    each = [found[f"validation_{layers}x{dim}_recall@100"] for layers, dim in CELLS]
    assert found["validation_mean_recall@100"] == pytest.approx(np.mean(each))
    assert found["validation_recall@100"] == each[-1]


def test_the_peer_trains_through_the_recipe(tmp_path):
    peer = {**TRAIN, "output_dir": str(tmp_path), "matryoshka": {**GRID, "way": "matryoshka2d"}}
    peer["trainer"] = {**TRAIN["trainer"], "max_steps": 2}
    assert list(finetune_search(from_dict(FinetuneSettings, peer))["cells"]) == ["1x8", "2x8", "1x64", "2x64"]
    with pytest.raises(ValueError, match=r"knows no loss\.cached"):
        from_dict(FinetuneSettings, {**peer, "loss": {"cached": True}})
    for ignored in ({"weights": [1, 2, 1, 1]}, {"sample": 2}):
        with pytest.raises(ValueError, match=r"knows no matryoshka\.weights and matryoshka\.sample"):
            from_dict(FinetuneSettings, {**peer, "matryoshka": {**peer["matryoshka"], **ignored}})
        from_dict(FinetuneSettings, {**peer, "matryoshka": {**GRID, **ignored}})
    with pytest.raises(ValueError, match=r"needs one encoder for both sides: set model\.shared to true"):
        from_dict(FinetuneSettings, {**peer, "model": {**TRAIN["model"], "shared": False}})
    with pytest.raises(ValueError, match=r"does not go with loss\.name cosent"):
        from_dict(FinetuneSettings, {**peer, "loss": {"name": "cosent"}, "matryoshka": GRID})


def test_the_hinge_loss_trains_over_a_grid_through_the_recipe(tmp_path, monkeypatch):
    """The whole model alone is the plain run, and so is a grid whose other cells weigh nothing; else they count."""
    losses, init = [], GridLoss.__init__

    def noted(self, model, loss, grid, sample=0):
        losses.append((type(loss).__name__, grid.cells, sample))
        init(self, model, loss, grid, sample)

    monkeypatch.setattr(GridLoss, "__init__", noted)
    hinge = {**TRAIN, "loss": {"name": "hinge"}, "rows": {"batch_size": 16, "hard": 0.5}}
    grids = {"plain": None, "alone": {"cells": [[2, 64]]}, "weighed": {**GRID, "weights": [0, 0, 0, 1]}}
    grids |= {"grid": GRID, "sampled": {**GRID, "sample": 2}}
    found = {}
    for name, grid in grids.items():
        settings = {**hinge, "output_dir": str(tmp_path / name), "matryoshka": grid}
        found[name] = finetune_search(from_dict(FinetuneSettings, settings))
    for name in ("alone", "weighed"):
        for key in ("first_loss", "last_loss"):
            assert found[name][key] == pytest.approx(found["plain"][key], rel=1e-4)
    assert found["grid"]["first_loss"] > 2 * found["plain"]["first_loss"]
    assert list(found["grid"]["cells"]) == list(found["sampled"]["cells"]) == ["1x8", "2x8", "1x64", "2x64"]
    whole = tuple(CELLS)
    assert losses == [("ThreePartHingeLoss", cells, n) for cells, n in ((((2, 64),), 0), *[(whole, 0)] * 2, (whole, 2))]
    assert trained_cells(SentenceTransformer(str(tmp_path / "sampled"))) == CELLS


def test_a_budget_ends_in_a_model_of_that_cell(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.retrieval.training.grid_measure.measure_latency", slow_as_it_is_deep())
    run = ChooseRun(str(trained[0]), tmp_path, latency_ms=1.5, repeats=3, data=SearchDataSettings(sample_size=120))
    results = choose_submodel(run)
    assert set(results["cells"]) == {"1x8", "2x8", "1x64", "2x64"}
    assert results["chosen"] in ("1x8", "1x64")
    cells = results["cells"]
    best = max((cells["1x8"], cells["1x64"]), key=lambda found: found["quality"]["recall@100"])
    assert results["chosen"] == f"1x{best['dim']}"
    chosen = SentenceTransformer(str(tmp_path))
    assert chosen.get_embedding_dimension() == best["dim"]
    assert len(chosen[0].model.layers) == 1
    assert best["model_bytes"] == 4 * sum(parameter.numel() for parameter in chosen.parameters())
    assert best["vector_bytes"] == 4 * best["dim"] * 120
    data = load_search_data(run.data)
    for split, quality in ((VALIDATION, best["quality"]), (TEST, results["test"])):
        alone = SearchEvaluator(data, data.of(split))(chosen)
        assert alone["recall@10"] == pytest.approx(quality["recall@10"])
        assert alone["ndcg@10"] == pytest.approx(quality["ndcg@10"], abs=1e-4)
    assert read_run(tmp_path)["results"]["chosen"] == results["chosen"]
    assert "cut out and otherwise unchanged" in " ".join((tmp_path / "README.md").read_text().split())
    assert (tmp_path / "cells.png").read_bytes()[:4] == b"\x89PNG"


def test_test_figures_name_the_files_of_ones_own(trained, tmp_path):
    load_sample("query_products", size=120).to_parquet(str(tmp_path / "pairs.parquet"))
    load_sample("products", size=120).to_parquet(str(tmp_path / "products.parquet"))
    own = SearchDataSettings(pairs=[str(tmp_path / "pairs.parquet")], products=str(tmp_path / "products.parquet"))
    cells = from_dict(GridSettings, {"cells": [[1, 8]]})
    results = choose_submodel(ChooseRun(str(trained[0]), tmp_path / "out", repeats=1, cells=cells, data=own))
    assert {row["dataset_name"] for row in results["metrics"]} == {f"test queries of {tmp_path / 'pairs.parquet'}"}


def slow_as_it_is_deep():
    """One millisecond a layer, in place of a clock: models are measured from the shallowest on."""
    from rexbert_hf.retrieval.serving.latency import Latency

    calls = iter(range(1, 9))

    def measured(call, inputs, repeats):
        assert call(inputs[0]).shape == (1, 64)
        depth = next(calls)
        return Latency(float(depth), depth + 0.5, 1.0)

    return measured


def test_a_budget_that_no_cell_meets_saves_what_was_measured_and_no_model(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.retrieval.training.grid_measure.measure_latency", slow_as_it_is_deep())
    run = ChooseRun(str(trained[0]), tmp_path, latency_ms=0.1, data=SearchDataSettings(sample_size=120))
    with pytest.raises(ValueError, match=r"the fastest, 1x\d+ \(layers x dimensions\), takes 1\.00 ms"):
        choose_submodel(run)
    assert set(read_run(tmp_path)["results"]["cells"]) == {"1x8", "2x8", "1x64", "2x64"}
    assert not (tmp_path / "modules.json").exists()


def test_a_budget_that_no_cell_meets_leaves_an_earlier_choice_as_it_is(trained, tmp_path, caplog):
    cells = from_dict(GridSettings, {"cells": [[1, 8]]})
    run = ChooseRun(str(trained[0]), tmp_path, repeats=2, cells=cells, data=SearchDataSettings(**DATA))
    choose_submodel(run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run.latency_ms = 1e-9
    with pytest.raises(NoCellFitsError):
        choose_submodel(run)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "keeps the model of an earlier choice" in caplog.text


def test_a_choice_for_torch_leaves_no_graph_of_an_earlier_choice(trained, tmp_path, backwards):
    cells = from_dict(GridSettings, {"cells": [[2, 64]]})
    run = ChooseRun(str(trained[0]), tmp_path, runtime="int8", repeats=2, cells=cells, data=SearchDataSettings(**DATA))
    choose_submodel(run)
    assert any(name.startswith("onnx/") for name in files_of_run(tmp_path))
    run.runtime, run.cells = "torch", from_dict(GridSettings, {"cells": [[1, 8]]})
    choose_submodel(run)
    assert not any(name.startswith("onnx/") for name in files_of_run(tmp_path))


def test_where_no_cell_fits_the_recipe_prints_what_was_measured(trained, tmp_path, monkeypatch, capsys):
    """The table says which budget could be met; the error, which cell is the nearest."""
    words = ["--model", str(trained[0]), "--output_dir", str(tmp_path / "out"), "--latency_ms", "0.0001"]
    words += ["--data.sample_size", "120", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["choose_submodel.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "recipes" / "choose_submodel.py"), run_name="__main__")
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[-4:]] == ["1x8", "2x8", "1x64", "2x64"]
    assert "<" not in printed.out
    assert "model, card" not in printed.out
    assert printed.err.splitlines()[-1].startswith("error: no cell answers a query within 0.0001 ms")


@pytest.fixture
def backwards(monkeypatch):
    """Graphs in place of real ones, whose vectors are the model's backwards; what was exported, in order."""
    exported = []

    def export(model, folder, precisions, texts=None, fused=True):
        exported.append(model)
        model.fused_graph = fused
        assert precisions == ("int8",)
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "model_int8.onnx").write_bytes(b"x" * (1000 + len(exported)))
        (Path(folder) / "encoder.json").write_text('{"graphs": {"int8": "model_int8.onnx"}}')

    class Backwards:
        def __init__(self, folder, precision, threads):
            assert (Path(folder) / "model_int8.onnx").exists()
            self.model = exported[-1]

        def encode_query(self, texts):
            return self.model.encode_query(texts)[:, ::-1].copy()

    monkeypatch.setattr("rexbert_hf.retrieval.serving.onnx_export.export_onnx", export)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.onnx_encoder.OnnxEncoder", Backwards)
    return exported


def test_graphs_are_measured_as_they_serve(trained, backwards):
    """What is exported is the model of that depth, and its own vectors of the queries are searched with."""
    data = load_search_data(from_dict(SearchDataSettings, DATA))
    model = SentenceTransformer(str(trained[0])).eval()
    cells = [(1, 8), (2, 8)]
    evaluator = GridEvaluator(cells, data, data.of(VALIDATION))
    graph, plain = (measure_cells(model, cells, evaluator, runtime, 3) for runtime in ("int8", "torch"))
    assert [cell.model_bytes for cell in graph] == [1001, 1002]
    assert [len(model[0].model.layers) for model in backwards] == [1, 2]
    assert [model.truncate_dim for model in backwards] == [None, None]
    assert graph[1].quality != plain[1].quality
    assert graph[0].p50 <= graph[0].p99


def test_vectors_of_a_cell_are_those_that_an_index_holds(trained):
    """It leaves out products without text."""
    data = load_search_data(from_dict(SearchDataSettings, DATA))
    data.texts = ["", "", *data.texts[2:]]
    model = SentenceTransformer(str(trained[0])).eval()
    (cell,) = measure_cells(model, [(1, 8)], GridEvaluator([(1, 8)], data, data.of(VALIDATION)), repeats=1)
    assert cell.vector_bytes == 4 * 8 * (len(data.texts) - 2)


def figures_of_queries(data, cut, vectors):
    """Test figures of given vectors of the queries, over the products of a cut model."""
    evaluator = SearchEvaluator(data, data.of(TEST))
    products = unit(cut.encode_document([data.texts[i] for i in evaluator.products]))
    return means_of(GridEvaluator([], data, data.of(TEST)).figures(unit(vectors), products))


def test_test_figures_are_those_of_the_graph_that_is_saved(trained, tmp_path, backwards):
    data = load_search_data(from_dict(SearchDataSettings, DATA))
    cells = from_dict(GridSettings, {"cells": [[2, 64]]})
    run = ChooseRun(str(trained[0]), tmp_path, runtime="int8", repeats=2, cells=cells, data=SearchDataSettings(**DATA))
    run.fused = False
    results = choose_submodel(run)
    assert [model.fused_graph for model in backwards] == [False, False]  # what is measured is what is saved
    cut = SentenceTransformer(str(tmp_path))
    queries = cut.encode_query([data.queries[i] for i in data.of(TEST)])
    wanted, plain = (figures_of_queries(data, cut, part) for part in (queries[:, ::-1], queries))
    assert results["test_runtime"] == "int8"
    assert results["test"] == pytest.approx(wanted)
    assert results["test"] != pytest.approx(plain)
    card = " ".join((tmp_path / "README.md").read_text().split())
    assert "The figures are those of its int8 graph" in card
    assert "test queries of sample shop (queries: onnx/int8, products: torch)" in card


def test_a_graph_within_a_memory_budget_is_saved_and_pushed(trained, tmp_path, monkeypatch):
    """Exported, measured, chosen, saved and pushed for real: the folder on the Hub holds all forms of the cell."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    data = SearchDataSettings(sample_size=120)
    options = {"runtime": "int8", "repeats": 2, "cells": from_dict(GridSettings, {"cells": [[1, 8], [1, 64]]})}
    with HubServer(tmp_path / "hub") as hub:
        push = functools.partial(push_run, endpoint=hub.endpoint, token=TOKEN)
        monkeypatch.setattr(grid_choice, "push_run", push)
        run = ChooseRun(str(trained[0]), tmp_path / "out", data=data, memory_mb=9, push_to_hub="tester/cell", **options)
        results = choose_submodel(run)
        files = hub.files("tester/cell")
    dim = int(results["chosen"].removeprefix("1x"))
    assert results["url"].endswith("tester/cell")
    graph = tmp_path / "out" / "onnx" / "model_int8.onnx"
    assert results["cells"][results["chosen"]]["model_bytes"] == pytest.approx(graph.stat().st_size, rel=0.01)
    cut, stock = SentenceTransformer(str(tmp_path / "out")), SentenceTransformer(str(tmp_path / "out" / "modernbert"))
    assert isinstance(stock[0].model, ModernBertModel)
    texts = ["red mug", "blue plate with a long name"]
    wanted = cut.encode(texts)
    assert wanted.shape == (2, dim)
    np.testing.assert_allclose(stock.encode(texts), wanted, atol=1e-5)
    encoder = OnnxEncoder(tmp_path / "out" / "onnx", "int8")
    shop = load_search_data(data)
    asked = encoder.encode_query([shop.queries[i] for i in shop.of(TEST)])
    assert results["test"] == pytest.approx(figures_of_queries(shop, cut, asked), abs=1e-3)
    found = encoder.encode(texts)
    assert float((unit(found) * unit(wanted)).sum(1).min()) > 0.9
    wanted_files = {"onnx/model_int8.onnx", "modernbert/model.safetensors", "modernbert/tokenizer.json", "README.md"}
    assert wanted_files | {"modernbert/modules.json", "modernbert/1_Pooling/config.json"} <= set(files)
    assert not any(name.startswith("grid/") for name in files)
    assert b"--model-id /data/modernbert" in files["README.md"]


def test_the_sample_run_trains_chooses_and_prints(tmp_path, monkeypatch, capsys):
    words = [
        "--output_dir",
        str(tmp_path / "out"),
        "--latency_ms",
        "1000",
        "--data.sample_size",
        "120",
        "--repeats",
        "3",
    ]
    words += [
        "--finetune.trainer.max_steps",
        "2",
        "--finetune.model.vocab_size",
        "512",
        "--finetune.rows.batch_size",
        "8",
    ]
    words += ["--finetune.trainer.use_cpu", "true", "--finetune.trainer.bf16", "false"]
    monkeypatch.setattr(sys, "argv", ["choose_submodel.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "recipes" / "choose_submodel.py"), run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "layers x dims" in said
    assert said.count(" <\n") == 1
    assert len(read_run(tmp_path / "out")["results"]["cells"]) == 12


def test_maps_have_holes_where_a_diagonal_has_none(tmp_path):
    maps = {"grid": {(1, 8): 0.2, (1, 64): 0.3, (2, 8): 0.3, (2, 64): 0.4}, "diagonal": {(1, 8): 0.25, (2, 64): 0.4}}
    assert plot_maps(maps, tmp_path / "maps.png", "R@100").read_bytes()[:4] == b"\x89PNG"
    assert plot_maps({"none": {}}, tmp_path / "none.png") is None
    assert plot_choice(MEASURED, None, tmp_path / "choice.png", "recall@100", latency_ms=1.0, memory_mb=2.0).exists()
