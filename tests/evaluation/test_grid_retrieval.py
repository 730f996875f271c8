"""Retrieval over the grid: each cell beside the encoder's own hidden states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.grid_retrieval import GridRetrieval, grid_of
from rexbert_hf.evaluation.product_search import ProductSearch
from rexbert_hf.evaluation.runner import check_result
from rexbert_hf.evaluation.searchers import biencoder
from rexbert_hf.evaluation.task import TaskOptions, TaskSource
from rexbert_hf.metrics import grades_of, recall_at_k
from rexbert_hf.models import RexBertConfig, RexBertModel
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
from rexbert_hf.retrieval.training.exact_search import exact_top_k

SHAPE = {"num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def shop():
    """Twenty queries over some hundred products."""
    whole = GridRetrieval().load(TaskSource(sample=True))
    return replace(whole, queries=whole.queries[:20]).part(150)


def save(folder, shop, **grid):
    tokenizer = train_tokenizer(shop.product_texts, 512)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    torch.manual_seed(1)
    model = RexBertModel(RexBertConfig(vocab_size=len(tokenizer), **SHAPE, **special, **grid)).eval()
    with torch.no_grad():  # fresh layers hardly change their input: all depths would rank alike
        for parameter in model.layers.parameters():
            parameter.mul_(12 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def by_hand(model, tokenizer, texts):
    """Layers -> mean over tokens of final_norm(hidden state after that layer), `[N, 32]`."""
    found = {2: [], 4: []}
    with torch.no_grad():
        for text in texts:
            batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
            out = model(**{k: batch[k] for k in ("input_ids", "attention_mask")}, output_hidden_states=True)
            for layers, hidden in ((2, model.final_norm(out.hidden_states[2])), (4, out.last_hidden_state)):
                found[layers].append(hidden[0].mean(dim=0).numpy())
    return {layers: np.stack(vectors) for layers, vectors in found.items()}


def cut(vectors, dim):
    return vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)


def test_cells_are_the_hidden_states(tmp_path, shop):
    model, tokenizer = save(tmp_path, shop, matryoshka_layers=[2, 4], matryoshka_dims=[8, 32])
    task = GridRetrieval()
    result = task.run(str(tmp_path), shop, 0, TaskOptions())
    check_result(task, result)
    assert result.counts["cells"] == 4
    assert task.averaged_over(result) == (
        "2 layers, 8 dimensions", "2 layers, 32 dimensions", "4 layers, 8 dimensions", "4 layers, 32 dimensions",
    )  # fmt: skip
    relevant = shop.judged.count(shop.scale.relevant)
    queries, products = (by_hand(model, tokenizer, texts) for texts in (shop.query_texts, shop.product_texts))
    means = {}
    for cell in ((2, 8), (2, 32), (4, 8), (4, 32)):
        layers, dim = cell
        ranked = exact_top_k(cut(queries[layers], dim), cut(products[layers], dim), 1000)[1]
        recall = recall_at_k(grades_of(ranked, shop.judged), relevant, 10, shop.scale.relevant)
        found = result.metrics[f"recall@10, {layers} layers, {dim} dimensions"]
        # Vectors are equal to rounding, so a near tie may fall the other way in one query.
        assert found == pytest.approx(float(recall.mean()), abs=1 / len(recall) / relevant.min())
        means[cell] = float(recall.mean())
    assert len(set(means.values())) >= 3, "the cells are too much alike to tell them apart"
    hundred = [value for name, value in result.metrics.items() if name.startswith("recall@100,")]
    assert result.metrics["grid_recall@100"] == pytest.approx(np.mean(hundred))
    whole = ProductSearch().run(str(tmp_path), shop, 0, TaskOptions())
    assert result.metrics["recall@10, 4 layers, 32 dimensions"] == whole.metrics["recall@10"]


def test_a_stock_encoder_that_was_fine_tuned_over_a_grid_gets_its_cells(tmp_path, shop):
    _, tokenizer = save(tmp_path / "rexbert", shop)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **shape))
    model.config.matryoshka_cells = [[1, 8], [2, 32]]  # as `note_cells` writes them
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    whole, _ = biencoder(str(tmp_path / "bert"), TaskOptions())
    assert grid_of(str(tmp_path / "bert"), whole) == [(1, 8), (2, 32)]
    whole[0].auto_model.config.matryoshka_cells = [[1, 8], [2, 32], [2, 64]]
    assert grid_of(str(tmp_path / "bert"), whole) == [(1, 8), (2, 32)], "two that are one by the model's width"


def test_both_encoders_are_cut(tmp_path, shop):
    save(tmp_path / "base", shop)
    load_biencoder(BiEncoderSettings(base=str(tmp_path / "base"), shared=False)).save(str(tmp_path / "two"))
    one, two = (GridRetrieval().run(str(tmp_path / name), shop, 0, TaskOptions()) for name in ("base", "two"))
    assert two.metrics == pytest.approx(one.metrics)


def test_a_plain_model_gets_thirds_of_its_layers(tmp_path, shop):
    save(tmp_path, shop)
    metrics = GridRetrieval().run(str(tmp_path), shop, 0, TaskOptions()).metrics
    cells = {name.partition(", ")[2] for name in metrics if name.startswith("mrr@10,")}
    assert cells == {"1 layers, 32 dimensions", "3 layers, 32 dimensions", "4 layers, 32 dimensions"}
    assert {name.partition(",")[0] for name in metrics} == {
        *(f"{kind}@{k}" for kind in ("mrr", "recall") for k in (10, 100, 1000)), "grid_recall@100"
    }  # fmt: skip
