"""The way of docs/search.md from a shop's own log and catalogue, both CSV, to a model and an index."""

from __future__ import annotations

from pathlib import Path

import pytest

from rexbert_hf.retrieval.pairs.files import load_pairs
from rexbert_hf.retrieval.pairs.run import build_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, run_build_index
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.settings import load_settings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
COLOURS = ["red", "blue", "green", "white", "black", "grey"]
THINGS = ["lamp", "kettle", "mug", "desk", "chair"]
TITLES = {str(100 + i): f"{COLOURS[i % 6]} {THINGS[i % 5]}" for i in range(30)}
TINY = {
    "model.base": "null",
    "model.preset": "tiny",
    "model.vocab_size": "384",
    "model.max_tokens": "16",
    "rows.batch_size": "24",
    "trainer.max_steps": "2",
    "trainer.bf16": "false",
    "trainer.use_cpu": "true",
    "trainer.cpu_threads": "1",
}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Each product is bought once for its title, beside its neighbours; ids of digits that share them."""
    ids = list(TITLES)
    shown = [[ids[i], ids[(i + 1) % 30], ids[(i + 7) % 30]] for i in range(30)]
    events = [f"{TITLES[name[0]]},{' '.join(name)},{name[0]},{name[0]}" for name in shown]
    (tmp_path / "clicks.csv").write_text("\n".join(["query,shown,clicked,bought", *events, ""]))
    products = [f"{name},{title},{n + 1}.50" for n, (name, title) in enumerate(TITLES.items())]
    (tmp_path / "catalogue.csv").write_text("\n".join(["product_id,title,price", *products, ""]))
    monkeypatch.chdir(tmp_path)


def words_of(command: str) -> list[tuple[str, str]]:
    """The dotted keys of a command that the page prints."""
    assert command in (ROOT / "docs" / "search.md").read_text().replace(" \\\n   ", "")
    words = command.split()
    pairs = words[words.index(next(word for word in words if word.startswith("--"))) :]
    return [(name.removeprefix("--"), value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)]


@pytest.mark.usefixtures("shop")
def test_a_log_and_a_catalogue_of_three_columns_become_a_model_and_an_index():
    words = words_of(
        "recipes/build_pairs.py --events.path clicks.csv --products.path catalogue.csv --output_dir output/my-pairs"
    )
    build_pairs(load_settings(BuildPairsRun, CONFIGS / "build_pairs.yaml", [*words, ("split.held_out", "0.3")]))
    pairs = [row for split in ("train", "validation", "test") for row in load_pairs("output/my-pairs", "pairs", split)]
    bought = {(row["query"], row["product_id"]) for row in pairs if row["label"] == 1}
    assert bought == {(title, name) for name, title in TITLES.items()}
    assert load_pairs("output/my-pairs", "products").column_names == ["product_id", "title", "price"]

    words = words_of(
        "recipes/finetune_search.py recipes/configs/finetune_pairs.yaml --model.base output/my-qpi"
        " --data.pairs output/my-pairs/pairs --data.products output/my-pairs/products.parquet"
        " --output_dir output/my-search"
    )
    settings = load_settings(FinetuneSettings, CONFIGS / "finetune_pairs.yaml", [*words, *TINY.items()])
    assert finetune_search(settings)["steps"] == 2

    words = words_of(
        "recipes/build_index.py --model output/my-search --index.kind int8 --products.path catalogue.csv"
        " --output_dir output/my-index"
    )
    tried = [("queries", "[red lamp]"), ("filter", "{price: {max: 9}}"), ("modes", "[dense]"), ("k", "30")]
    results = run_build_index(load_settings(BuildIndexRun, CONFIGS / "build_index.yaml", [*words, *tried]))
    assert results["products"] == 30
    assert {hit["id"] for hit in results["searches"][0]["hits"]} == {str(100 + i) for i in range(8)}, "1.50 to 8.50"
