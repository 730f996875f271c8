"""Measures of bi-encoders against figures counted by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from reproduction_cases import paper

from rexbert_hf.metrics import Judgements
from rexbert_hf.reproduction import search_quality
from rexbert_hf.reproduction.budgets import stage_recipe
from rexbert_hf.reproduction.jobs import Job, corpora_of
from rexbert_hf.reproduction.pair_stages import pair_recipe
from rexbert_hf.reproduction.search_quality import measure_results, measure_search, volume_threshold
from rexbert_hf.retrieval.training.search_data import SearchData

PRODUCTS = [f"product {i}" for i in range(40)]
QUERIES = ["near 0", "near 20", "near 30", "validation"]


def vectors_of(texts):
    """A query points at its product; products lie on a quarter circle in their order."""
    angles = np.array([float(text.split()[-1]) if text != "validation" else 10.0 for text in texts]) * np.pi / 80
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job whose bi-encoder knows the order of the products, over three test queries and one for validation."""
    grades = {(0, 0): 3.0, (0, 1): 2.33, (0, 2): 2.0, (0, 39): 2.67, (1, 20): 3.0, (2, 5): 1.0, (3, 10): 3.0}
    judged = Judgements.from_pairs(*zip(*grades, strict=True), list(grades.values()), len(QUERIES))
    splits = np.array([2, 2, 2, 1], dtype=np.int8)
    data = SearchData(PRODUCTS, PRODUCTS, np.arange(40), QUERIES, splits, judged, 2.33)
    monkeypatch.setattr(search_quality, "_data", lambda described: data)
    monkeypatch.setattr(search_quality, "SentenceTransformer", lambda *_, **__: None)
    monkeypatch.setattr(search_quality, "prepare_device", lambda _: None)
    monkeypatch.setattr(search_quality, "encode", lambda model, texts, role, batch_size: vectors_of(texts))
    settings = paper(tmp_path)
    recipe = stage_recipe(settings, settings.stages[1])
    recipe.output_dir = str(tmp_path)
    return Job(settings.stages[1], 0, recipe, downstream=SimpleNamespace(data=None))


def test_figures_counted_by_hand(job):
    found = measure_search(job, exact=2.67, substitute=2.0)
    # Query 0 finds products 0, 1, ..., 39; query 1 finds 20 first. Query 2 has no relevant product and is left out.
    assert found["queries"] == 2
    assert found["recall@10"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["recall@100"] == 1.0
    assert found["E@16"] == pytest.approx((1 / 16 + 1 / 16) / 2)
    assert found["S@16"] == pytest.approx((2 / 16 + 0) / 2)
    assert found["E+S@16"] + found["O@16"] == pytest.approx(1.0)
    assert found["judged@16"] == pytest.approx((3 / 16 + 1 / 16) / 2)
    assert found["judged_E@16"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["judged_E+S@100"] == 1.0


def test_part_of_the_catalogue_and_of_the_queries(job):
    found = measure_search(job, exact=2.67, substitute=2.0, max_queries=1, max_products=20)
    assert (found["queries"], found["products"]) == (1, 20)


def test_a_query_at_the_edge_has_a_sparse_page(job):
    # The validation query (at 10) shows 20 products within 10 places: query 0 has 11 there, query 1 has 21.
    assert measure_search(job, exact=2.67, substitute=2.0, shown=20.5)["sparse"] == 0.5
    assert measure_search(job, exact=2.67, substitute=2.0, shown=39.0)["sparse"] == 0.0


@pytest.mark.parametrize("shown", [1.0, 2.5, 8.0])
def test_at_the_threshold_so_many_products_are_shown(shown):
    rng = np.random.default_rng(0)
    queries, products = (rng.normal(size=(n, 4)).astype(np.float32) for n in (6, 8))
    threshold = volume_threshold(queries, products, shown)
    assert (queries @ products.T >= threshold - 1e-6).sum() == round(6 * shown)


def test_a_stage_without_bi_encoder_is_one_line(job):
    with pytest.raises(ValueError, match="stage 'plain' trains no bi-encoder"):
        measure_search(Job(job.stage, 0, job.recipe))


def test_results_of_a_run_are_values(tmp_path, job):
    results = {"steps": 3, "test": {"recall@100": 0.5, "cells": {"3x64": 0.25}, "note": "x"}}
    (tmp_path / "run.json").write_text(json.dumps({"results": results}))
    assert measure_results(job, of="test") == {"recall@100": 0.5, "cells.3x64": 0.25}
    assert measure_results(job)["steps"] == 3.0
    assert measure_results(job, of="nothing.here") == {}


def test_a_stage_of_pairs_reads_its_own_sources_and_leaves_the_others_alone(tmp_path):
    limits = {"min_relevance": 0.5, "max_query_tokens": 16, "max_tokens": 64}
    pairs = {"sample": "query_products", "sample_size": 40, "pairs": limits}
    phase = {
        "name": "pairs", "mixture": {"pairs": 1}, "max_tokens": 4096, "seq_length": 64, "batch_tokens": 1024,
        "learning_rate": "1e-3", "masking": {"kind": "query_product", "options": {"query_probability": 0.35}},
    }  # fmt: skip
    changes = {"base.sources.pairs": pairs, "base.phases.1": phase}
    changes |= {"stages.1.phases": ["pairs"], "stages.2.phases": ["pairs"]}
    settings = paper(tmp_path, str(tmp_path / "cache"), **changes)
    recipe = stage_recipe(settings, settings.stages[1])
    span, relevance = pair_recipe(recipe, "span"), pair_recipe(recipe, "relevance")
    assert list(span.sources) == list(relevance.sources) == ["pairs"]
    assert recipe.phases[0].masking.kind == "query_product"
    assert recipe.sources["pairs"].pairs.min_relevance == 0.5
    kept, all_pairs = (len(corpora_of(chosen)["pairs"].train) for chosen in (span, relevance))
    assert kept < all_pairs, "only the classifier sees irrelevant pairs"
