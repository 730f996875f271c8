"""Measures of bi-encoders: what the paper's tables 2 and 3 count, from graded relevance over a part of the catalogue.

The paper asks annotators about every product retrieved. Here a few products of each query were judged once, so shares
of exact matches and substitutes are given twice: with unjudged products as "other", and among the judged ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from rexbert_hf.hub import read_run
from rexbert_hf.metrics import Judgements, sparse_results
from rexbert_hf.reproduction.jobs import Job
from rexbert_hf.retrieval.training.evaluator import search_metrics, searched_products
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k
from rexbert_hf.retrieval.training.finetune import prepare_device
from rexbert_hf.retrieval.training.finetune_settings import SearchTrainerSettings
from rexbert_hf.retrieval.training.search_data import (
    TEST,
    VALIDATION,
    SearchData,
    SearchDataSettings,
    load_search_data,
)
from rexbert_hf.settings import from_dict, to_dict
from rexbert_hf.training.plan import flatten

DEPTH = 1000
PAGE = 16
"""Products of a full page of results (the paper's table 3)."""


def measure_search(
    job: Job,
    exact: float = 1.0,
    substitute: float = 0.5,
    max_queries: int | None = None,
    max_products: int | None = None,
    shown: float = 50.0,
    batch_size: int = 128,
) -> dict[str, float]:
    """Search the test queries with a row's bi-encoder, over its own recipe's data.

    Args:
        job: a finished downstream stage.
        exact: least grade of an exact match.
        substitute: least grade of a substitute.
        max_queries: test queries, drawn once; None for all.
        max_products: size of the part of the catalogue; None for all of it. It holds all products that were judged for
            these queries, so recall is higher than over the whole.
        shown: sparse results are counted over the score at which the model shows so many products of the part to a
            validation query on average: models with different ranges of cosines are compared at equal volume.
        batch_size: texts of one forward pass.

    Raises:
        ValueError: if the stage is no downstream stage, or no test query has a relevant product.
    """
    if job.downstream is None:
        raise ValueError(f"stage '{job.stage.name}' trains no bi-encoder: give measure 'search' the rows that do")
    prepare_device(SearchTrainerSettings(use_cpu=job.recipe.trainer.use_cpu))
    data = _data(json.dumps(to_dict(job.downstream.data), sort_keys=True))
    model = SentenceTransformer(str(job.folder), device="cpu" if job.recipe.trainer.use_cpu else None)
    test = _drawn(data.of(TEST), max_queries)
    if not len(test):
        raise ValueError("no test query has a relevant product: change the recipe's data")
    judged = data.judged.select(test)
    part = searched_products(data, judged, max_products)
    products = encode(model, [data.texts[i] for i in part], "document", batch_size)
    queries = encode(model, [data.queries[i] for i in test], "query", batch_size)
    scores, ranked = exact_top_k(queries, products, DEPTH)
    judged = Judgements(judged.offsets, np.searchsorted(part, judged.products), judged.grades)
    values = search_metrics(ranked, judged, data.relevant, depths=(10, PAGE, 100), labels=(exact, substitute))
    found = {name: float(np.nanmean(value)) for name, value in values.items() if not np.isnan(value).all()}
    others = _drawn(data.of(VALIDATION, with_relevant=False), max_queries)
    if len(others) and len(part) >= PAGE:
        seen = encode(model, [data.queries[i] for i in others], "query", batch_size)
        found["sparse"] = float(sparse_results(scores, volume_threshold(seen, products, shown), PAGE).mean())
    return {**found, "queries": float(len(test)), "products": float(len(part))}


def volume_threshold(queries: np.ndarray, products: np.ndarray, shown: float) -> float:
    """The score above which a query has so many products on average.

    Args:
        queries: normalised vectors `[Q, D]`.
        products: likewise `[P, D]`.
        shown: products a query.

    Example:
        >>> volume_threshold(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), 1.0)
        1.0
    """
    depth = min(len(products), max(DEPTH, round(4 * shown)))
    best = np.sort(exact_top_k(queries, products, depth)[0], axis=None)[::-1]
    return float(best[min(len(best), max(1, round(shown * len(queries)))) - 1])


def _drawn(queries: np.ndarray, wanted: int | None) -> np.ndarray:
    if wanted is None or wanted >= len(queries):
        return queries
    return np.sort(np.random.default_rng(0).permutation(queries)[:wanted])


@lru_cache(maxsize=1)  # all rows of a table search the same data
def _data(described: str) -> SearchData:
    return load_search_data(from_dict(SearchDataSettings, json.loads(described)))


def measure_results(job: Job, of: str = "") -> dict[str, float]:
    """What a run measured itself: all numbers of the `results` in its `run.json`, by dotted key.

    Args:
        job: a finished run.
        of: only the numbers below this dotted key, such as "test".
    """
    found: Any = read_run(Path(job.folder))["results"]
    for key in of.split(".") if of else ():
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    numbers = flatten(found) if isinstance(found, Mapping) else {}
    return {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}
