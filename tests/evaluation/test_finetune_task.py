"""One task, model kept: what lies in the folder, and that a finished run is left as it is."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from rexbert_hf.catalog import load_sample
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.finetune_task import finetune_task
from rexbert_hf.evaluation.product_search_tuned import ProductSearchTuned
from rexbert_hf.evaluation.query_category import QueryCategory
from rexbert_hf.evaluation.settings import FinetuneTaskSettings, GridSettings
from rexbert_hf.hub import card_of_run, read_run
from rexbert_hf.hub.evaluated import files_key
from rexbert_hf.settings import parse_args

RECIPE = Path(__file__).parents[2] / "recipes" / "finetune_task.py"


@pytest.fixture
def model(tmp_path):
    tokenizer = train_tokenizer(load_sample("products", size=100)["title"], 512)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def write_pairs(path):
    """A small shop's judged pairs."""
    titles = {row["product_id"]: row["title"] for row in load_sample("products", size=120)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "product_id", "title", "label"])
        for row in load_sample("query_products", size=120):
            writer.writerow([row["query"], row["product_id"], titles[row["product_id"]], row["label"]])
    return str(path)


def test_the_model_is_kept_with_its_figures(tmp_path, model, monkeypatch):
    grid = GridSettings(learning_rates=[3e-3, 1e-6], epochs=[1], batch_size=64)
    settings = FinetuneTaskSettings(
        model=model,
        output_dir=str(tmp_path / "out"),
        datasets={"product_search_tuned": write_pairs(tmp_path / "pairs.csv")},
        max_length=16,
        tuning=grid,
        device="cpu",
    )
    results = finetune_task(settings)
    assert any("learning rate 0.003" in note for note in results["notes"])
    assert SentenceTransformer(str(tmp_path / "out")).encode(["lamp"]).shape == (1, 32)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    (entry,) = card.data.eval_results
    assert (entry.metric_name, entry.metric_value) == ("recall@100", round(results["test"]["recall@100"], 5))
    assert (entry.dataset_split, entry.metric_args["budget"], entry.metric_args["seed"]) == ("test", "small", 0)
    assert read_run(tmp_path / "out")["results"]["test"] == results["test"]
    assert not list((tmp_path / "out" / "cache").iterdir())  # checkpoints are gone
    monkeypatch.setattr(ProductSearchTuned, "run", None)
    assert finetune_task(settings)["test"] == results["test"]


@pytest.mark.parametrize("task", ["query_category", "attribute_extraction", "review_qa"])
def test_a_head_runs_as_its_card_says(tmp_path, model, task):
    results = finetune_task(head_settings(tmp_path, model, task=task))
    text = card_of_run(tmp_path / "out", str(tmp_path / "out"))
    code = re.search(r"## How to use\n\n```python\n(.*?)\n```", text, re.DOTALL)[1]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    if task == "query_category":
        labels = set(read_run(tmp_path / "out")["results"]["test"]) and ast.literal_eval(said.getvalue())[0]["label"]
        assert labels in load_labels(tmp_path / "out")
    assert "AutoModel.from" not in text
    assert results["metrics"][0]["dataset_name"] == "sample shop"


def load_labels(folder):
    return set(json.loads((folder / "config.json").read_text())["label2id"])


def head_settings(tmp_path, model, **changes):
    grid = GridSettings(learning_rates=[1e-3], epochs=[1], batch_size=64)
    fields = {"task": "query_category", "output_dir": str(tmp_path / "out"), "max_length": 16, "device": "cpu"}
    return FinetuneTaskSettings(**{"model": model, "tuning": grid, **fields, **changes})


def test_a_changed_model_is_fine_tuned_again_and_another_run_is_refused(tmp_path, model):
    settings = head_settings(tmp_path, model)
    finetune_task(settings)
    before = files_key(tmp_path / "out")
    earlier = tmp_path / "out" / "1_Pooling" / "config.json"
    earlier.parent.mkdir()
    earlier.write_text("{}")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run = read_run(tmp_path / "out")
    run["files"] += ["1_Pooling/config.json", "../base/config.json"]
    (tmp_path / "out" / "run.json").write_text(json.dumps(run))
    made = BertModel.from_pretrained(model)
    torch.nn.init.normal_(made.embeddings.word_embeddings.weight)
    made.save_pretrained(model)
    finetune_task(settings)
    assert files_key(tmp_path / "out") not in (before, None)
    assert not earlier.exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match=r"another run \(task differ\): choose another output_dir"):
        finetune_task(head_settings(tmp_path, model, task="attribute_extraction"))
    with pytest.raises(ValueError, match="is the folder of the model itself: choose another output_dir"):
        finetune_task(head_settings(tmp_path, model, output_dir=model))
    assert FinetuneTaskSettings(task="review_qa").output_dir == "output/task/review_qa"


def test_files_of_the_user_stay_and_train_nothing_again(tmp_path, model, monkeypatch):
    settings, mine = head_settings(tmp_path, model), {"brands.txt", "prices.json", "mine.py", "2026_q1/orders.json"}
    (tmp_path / "out" / "2026_q1").mkdir(parents=True)
    for name in mine:
        (tmp_path / "out" / name).write_text("mine")
    finetune_task(settings)
    run = read_run(tmp_path / "out")
    assert {"config.json", "model.safetensors"} <= set(run["files"])
    assert not mine & set(run["files"])
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run["config"]["tuning"] = "<redacted>"  # by a version that hid more
    (tmp_path / "out" / "run.json").write_text(json.dumps(run))
    with monkeypatch.context() as patch:
        patch.setattr(QueryCategory, "run", None)
        finetune_task(settings)
    del run["files"]  # of an earlier version: it cannot tell whose they are, and removes nothing
    (tmp_path / "out" / "run.json").write_text(json.dumps(run))
    finetune_task(settings)
    assert {(tmp_path / "out" / name).read_text() for name in (*mine, "notes.txt")} == {"mine"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"did not make \(tokenizer.json\): choose another output_dir"):
        finetune_task(head_settings(tmp_path, model, output_dir=str(tmp_path / "other")))


def test_another_version_of_the_task_trains_again(tmp_path, model, monkeypatch):
    settings = head_settings(tmp_path, model)
    finetune_task(settings)
    monkeypatch.setattr(QueryCategory, "version", QueryCategory.version + 1)
    monkeypatch.setattr(QueryCategory, "run", None)
    with pytest.raises(TypeError, match="not callable"):
        finetune_task(settings)


def test_changed_data_are_learnt_again(tmp_path, model, monkeypatch):
    path = tmp_path / "pairs.csv"
    settings = head_settings(
        tmp_path, model, task="product_search_tuned", datasets={"product_search_tuned": write_pairs(path)}
    )
    finetune_task(settings)
    path.write_text(path.read_text().replace(",I\n", ",S\n"))
    monkeypatch.setattr(ProductSearchTuned, "run", None)
    with pytest.raises(TypeError):
        finetune_task(settings)


def test_what_cannot_be_kept(tmp_path, model, monkeypatch):
    for changes, message in (
        ({"task": "product_search"}, "trains nothing"),
        ({"model": "bm25"}, "is a baseline"),
        ({"task": "glue_rte"}, "^glue_rte: the sample shop has no GLUE"),
        ({"data_dir": str(tmp_path)}, "product_search_tuned: no homedepot"),
        ({"data_dir": "nowhere"}, "no folder nowhere"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune_task(FinetuneTaskSettings(**{"model": model, "output_dir": str(tmp_path / "out"), **changes}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="fine-tuning on a task runs in one process, and 2 were asked for"):
        finetune_task(FinetuneTaskSettings(model=model, output_dir=str(tmp_path / "out")))
    with pytest.raises(ValueError, match="no task 'x'"):
        FinetuneTaskSettings(task="x")
    with pytest.raises(ValueError, match="one task"):
        FinetuneTaskSettings(task="all")


@pytest.mark.parametrize(
    ("words", "by_protocol"),
    [
        ([], False),
        (["--model", "bert", "--output_dir=out"], False),
        (["--task", "attribute_extraction"], True),
        (["--task=product_search_tuned", "--budget", "full"], True),
        (["--data-dir", "data"], True),
        (["--datasets.product_search_tuned", "pairs.csv"], True),
        ([str(RECIPE.parent / "configs" / "finetune_task.yaml")], True),
        (["--output_dir", "of.yaml"], False),
    ],
)
def test_a_task_that_is_named_keeps_its_protocol(words, by_protocol):
    config = runpy.run_path(str(RECIPE))["default_config"](words)
    settings = parse_args(FinetuneTaskSettings, words, config)
    assert (settings.max_length is None, settings.tuning is None) == (by_protocol, by_protocol)


@pytest.mark.parametrize("before", [[], ["--model", "bert"], ["--tuning.learning_rates=1e-5"]])
def test_a_configuration_of_any_name_is_no_short_run(tmp_path, before):
    (tmp_path / "mine.conf").write_text("task: query_category\n")
    config = runpy.run_path(str(RECIPE))["default_config"]([*before, str(tmp_path / "mine.conf")])
    assert config.name == "finetune_task.yaml"
