"""Retrieval with every sub-model of a grid of layers and dimensions (m3BERT).

A sub-model keeps the first layers and reads the first dimensions of the pooled embedding. The encoder is cut, not read
in between, so a cell is the model that `submodel` would save, final norm included.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
from transformers import AutoConfig

from rexbert_hf.evaluation.search_data import SearchProtocol, load_protocol
from rexbert_hf.evaluation.searchers import biencoder
from rexbert_hf.evaluation.task import Task, TaskOptions, TaskResult, TaskSource
from rexbert_hf.metrics import grades_of, mrr_at_k, recall_at_k
from rexbert_hf.retrieval.training.biencoder import find_base
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k
from rexbert_hf.retrieval.training.grid_settings import cells_of
from rexbert_hf.retrieval.training.grid_submodel import keep_layers

DEPTHS = (10, 100, 1000)
PRIMARY_DEPTH = 100
DIMENSIONS = (32, 64, 128)
SMALL_PRODUCTS = 16_000

Cell = tuple[int, int]


class GridRetrieval(Task):
    """MRR and recall at 10, 100 and 1000 of each cell, by exact search in blocks.

    The grid is the one that the model was trained with (`matryoshka_layers` x `matryoshka_dims`), else its layers in
    thirds by 32, 64, 128 and all dimensions. Embeddings are pooled as the model says, cut to the dimension, then
    normalised, as the released evaluation does. The primary figure is the mean of R@100 over the cells; models with
    other cells are not compared by it. The paper searches 9 million documents for a million queries; here Home Depot's
    titles stand in (16,000 of them with the small budget, all judged ones among them).
    """

    name: ClassVar[str] = "grid_retrieval"
    title: ClassVar[str] = "Retrieval over layers x dimensions"
    paper: ClassVar[str] = "m3BERT"
    data: ClassVar[str] = "queries and pages of a web search engine (not public)"
    folder: ClassVar[str] = "homedepot"
    dataset_name: ClassVar[str] = "pairs: query, product_id, title, label or relevance, split"
    split: ClassVar[str] = "as product_search"
    metric: ClassVar[str] = "grid_recall@100"
    comparable: ClassVar[str] = "no: the paper's data are not public"
    trains: ClassVar[bool] = False
    keeps_splits: ClassVar[bool] = True
    hub_task: ClassVar[str] = "information-retrieval"

    def load(self, source: TaskSource) -> SearchProtocol:
        """As `Task.load`."""
        return load_protocol(source).part(SMALL_PRODUCTS if source.small else None)

    def fingerprint(self, data: SearchProtocol) -> str:
        """As `Task.fingerprint`."""
        return data.fingerprint

    def run(self, model: str, data: SearchProtocol, seed: int, options: TaskOptions) -> TaskResult:
        """As `Task.run`; nothing is drawn."""
        whole, notes = biencoder(model, options)
        judged = data.judged
        relevant, least = judged.count(data.scale.relevant), data.scale.relevant
        cells = grid_of(model, whole)
        metrics: dict[str, float] = {}
        recalls = []
        for layers in sorted({layers for layers, _ in cells}):
            queries, products = _embeddings(whole, layers, data, options)
            for _, dim in (cell for cell in cells if cell[0] == layers):
                ranked = exact_top_k(_cut(queries, dim), _cut(products, dim), DEPTHS[-1])[1]
                grades = grades_of(ranked, judged)
                for k in DEPTHS:
                    cell = f"{layers} layers, {dim} dimensions"
                    metrics[f"mrr@{k}, {cell}"] = float(mrr_at_k(grades, k, least).mean())
                    recall = recall_at_k(grades, relevant, k, least)
                    metrics[f"recall@{k}, {cell}"] = float(recall.mean())
                    if k == PRIMARY_DEPTH:
                        recalls.append(recall)
        examples = np.mean(recalls, axis=0)
        metrics = {self.metric: float(examples.mean()), **metrics}
        counts = {**data.counts, "products": len(data.products), "cells": len(cells)}
        return TaskResult(metrics, examples, counts, notes=notes)

    def averaged_over(self, result: TaskResult) -> tuple[str, ...]:
        """The cells."""
        found = (name.partition(f"recall@{PRIMARY_DEPTH}, ")[2] for name in result.metrics)
        return tuple(cell for cell in found if cell)


def grid_of(model: str, made: Any) -> list[Cell]:
    """Cells (layers, dimensions) of a model, by layers, then dimensions.

    Args:
        model: its folder.
        made: the bi-encoder of it.

    Raises:
        ValueError: if its configuration does not say how many layers it has.
    """
    width = int(made.get_embedding_dimension())
    folder = find_base(model)
    # With an encoder each for queries and products, both were trained alike.
    inner = next((module.auto_model for module in made.modules() if hasattr(module, "auto_model")), None)
    config = inner.config if inner is not None else AutoConfig.from_pretrained(folder, trust_remote_code=False)
    trained = cells_of(config)
    if trained:
        return sorted({(layers, min(dim, width)) for layers, dim in trained})
    depth = getattr(config, "num_hidden_layers", None)
    if not depth:
        raise ValueError(f"{model}: config.json has no num_hidden_layers, so its layers cannot be cut")
    layers = sorted({max(1, round(depth * third / 3)) for third in (1, 2, 3)})
    dims = [dim for dim in DIMENSIONS if dim < width] + [width]
    return [(layer, dim) for layer in layers for dim in dims]


def _embeddings(whole: Any, layers: int, data: SearchProtocol, options: TaskOptions) -> tuple[np.ndarray, np.ndarray]:
    """Of queries and products, from the first layers."""
    cut = copy.deepcopy(whole)
    keep_layers(cut, range(layers))
    cut.eval()
    queries = encode(cut, data.query_texts, "query", options.batch_size)
    return queries, encode(cut, data.product_texts, "document", options.batch_size)


def _cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first dimensions, at length one; that the whole vectors had length one before changes nothing."""
    part = vectors[:, :dim]
    return part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
