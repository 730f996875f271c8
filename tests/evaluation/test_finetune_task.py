"""One task, model kept: what lies in the folder, and that a finished run is left as it is."""

from __future__ import annotations

import csv

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from rexbert_hf.catalog import load_sample
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.finetune_task import finetune_task
from rexbert_hf.evaluation.settings import FinetuneTaskSettings, GridSettings
from rexbert_hf.hub import read_run


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
    assert read_run(tmp_path / "out")["results"]["test"] == results["test"]
    assert not list((tmp_path / "out" / "cache").iterdir())  # checkpoints are gone
    monkeypatch.setattr("rexbert_hf.evaluation.finetune_task.make_task", None)
    assert finetune_task(settings)["test"] == results["test"]


def test_what_cannot_be_kept(tmp_path, model):
    for changes, message in (
        ({"task": "product_search"}, "trains nothing"),
        ({"model": "bm25"}, "is a baseline"),
        ({"data_dir": str(tmp_path)}, "product_search_tuned: no homedepot"),
        ({"data_dir": "nowhere"}, "no folder nowhere"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune_task(FinetuneTaskSettings(**{"model": model, "output_dir": str(tmp_path / "out"), **changes}))
    with pytest.raises(ValueError, match="no task 'x'"):
        FinetuneTaskSettings(task="x")
    with pytest.raises(ValueError, match="one task"):
        FinetuneTaskSettings(task="all")
