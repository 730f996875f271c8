"""Search quality of a bi-encoder over a catalogue, as a sentence-transformers evaluator and as plain figures.

The search is exact. Judgements are few (Home Depot: 6.6 products a query of 54,667), so each figure comes with the
share of retrieved products that anybody judged, and with the figure of the condensed list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from rexbert_hf.metrics import (
    Judgements,
    bootstrap_interval,
    condense,
    grades_of,
    judged_at_k,
    label_shares,
    mrr_at_k,
    ndcg_at_k,
    recall_at_k,
)
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k
from rexbert_hf.retrieval.training.search_data import VALIDATION, SearchData

DEPTH = 1000
"""Products retrieved a query: as deep as condensed lists look."""


class SearchEvaluator(BaseEvaluator):
    """R@100 (and the rest) of some queries over the catalogue or a part of it.

    Products without text are left out, as an index leaves them out, unless they were judged for one of the queries.
    The paper's validation catalogue is a part too. A part holds all judged products of the queries, and others drawn at
    random; recall is higher over a part, so compare figures over equal parts only.

    Args:
        data: catalogue, queries, judgements.
        queries: query numbers; those without a relevant product are left out.
        max_products: size of the part; None for the whole catalogue.
        batch_size: texts of one forward pass.
        bf16: bfloat16 autocast.
        seed: of the part.
        name: goes before the metrics' names.
    """

    def __init__(
        self,
        data: SearchData,
        queries: np.ndarray,
        max_products: int | None = None,
        batch_size: int = 64,
        bf16: bool = False,
        seed: int = 0,
        name: str = "",
    ) -> None:
        super().__init__()
        self.data, self.name, self.batch_size, self.bf16 = data, name, batch_size, bf16
        has_relevant = data.judged.count(data.relevant)[queries] > 0
        self.queries = queries[has_relevant]
        if not len(self.queries):
            raise ValueError("no query to evaluate has a relevant product: change the split or data.relevant")
        judged = data.judged.select(self.queries)
        self.products = searched_products(data, judged, max_products, seed)
        place = np.searchsorted(self.products, judged.products)
        self.judged = Judgements(judged.offsets, place, judged.grades)
        # The base would put the name before it at the first call only, and a log of before may be read without one.
        self.primary_metric = f"{name}_recall@100" if name else "recall@100"
        self.greater_is_better = True

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Means over the queries, by name."""
        training = model.training
        model.eval()
        queries = encode(model, [self.data.queries[i] for i in self.queries], "query", self.batch_size, self.bf16)
        texts = [self.data.texts[i] for i in self.products]
        products = encode(model, texts, "document", self.batch_size, self.bf16)
        model.train(training)
        ranked = exact_top_k(queries, products, DEPTH)[1]
        values = search_metrics(ranked, self.judged, self.data.relevant)
        means = {name: float(np.nanmean(value)) for name, value in values.items()}
        return self.prefix_name_to_metrics(means, self.name)


def validation_queries(data: SearchData, max_queries: int | None, split: int = VALIDATION) -> np.ndarray:
    """The queries that a model or a sub-model is chosen on: all with a relevant product, or some drawn of them.

    Args:
        data: queries and judgements.
        max_queries: how many at most; None for all.
        split: where they are taken from.
    """
    found = data.of(split)
    # Files are often sorted, so the first ones would be no sample.
    return found if max_queries is None else np.sort(np.random.default_rng(0).permutation(found)[:max_queries])


def searched_products(data: SearchData, judged: Judgements, wanted: int | None = None, seed: int = 0) -> np.ndarray:
    """Products that queries are searched in, int64, sorted: those with text, or some of them, and all judged ones.

    Args:
        data: the catalogue.
        judged: graded products of the queries.
        wanted: how many in all; None for the whole catalogue.
        seed: of the draw.
    """
    needed = np.unique(judged.products)
    found = np.union1d(np.flatnonzero(data.described), needed).astype(np.int64)
    return found[part_of(len(found), np.searchsorted(found, needed), wanted, seed)]


def part_of(size: int, needed: np.ndarray, wanted: int | None, seed: int) -> np.ndarray:
    """Numbers below `size`, sorted: all that are needed, and others at random until there are `wanted`.

    Args:
        size: of the whole.
        needed: numbers that must be there.
        wanted: how many in all; None for the whole.
        seed: of the draw.

    Example:
        >>> part_of(5, np.array([3]), 5, 0).tolist(), len(part_of(9, np.array([3, 4]), 4, 0))
        ([0, 1, 2, 3, 4], 4)
    """
    if wanted is None or wanted >= size:
        return np.arange(size)
    others = np.setdiff1d(np.arange(size), needed)
    more = np.random.default_rng(seed).permutation(others)[: max(0, wanted - len(needed))]
    return np.sort(np.concatenate([needed, more]))


def search_metrics(
    ranked: np.ndarray,
    judged: Judgements,
    relevant: float,
    gains: Any = None,
    depths: Sequence[int] = (10, 100),
    labels: tuple[float, float] | None = None,
) -> dict[str, np.ndarray]:
    """All figures of a ranking, one value a query.

    Args:
        ranked: product numbers, `[Q, K]`, best first.
        judged: graded products of the same queries.
        relevant: hits have this grade or above.
        gains: what a grade is worth in nDCG, a function of arrays; None for 2^(grade - 1) - 1, at least 0, where grades
            go beyond 1, and for the grade itself where not.
        depths: of recall and judged shares.
        labels: least grades of an exact match and of a substitute, for E@100, S@100, O@100 and E+S.

    Example:
        >>> judged = Judgements.from_pairs([0, 0], [3, 5], [1.0, 3.0], 1)
        >>> found = search_metrics(np.array([[3, 7, 5]]), judged, relevant=2.33)
        >>> found["recall@10"].tolist(), found["mrr@10"].round(2).tolist(), found["judged@10"].round(2).tolist()
        ([1.0], [0.33], [0.67])
    """
    worth = gains or (exponential_gain if _beyond_one(judged) else _plain_gain)
    grades = grades_of(ranked, judged)
    lists = {"": grades, "condensed_": condense(grades)}
    count = judged.count(relevant)
    judged_gains = Judgements(judged.offsets, judged.products, worth(judged.grades))
    found: dict[str, np.ndarray] = {}
    for prefix, matrix in lists.items():
        for k in depths:
            found[f"{prefix}recall@{k}"] = recall_at_k(matrix, count, k, relevant)
        found[f"{prefix}ndcg@10"] = ndcg_at_k(worth(matrix), judged_gains, 10)
    found["mrr@10"] = mrr_at_k(grades, 10, relevant)
    for k in depths:
        found[f"judged@{k}"] = judged_at_k(grades, ranked, k)
    if labels is not None:
        for k in (16, 100):
            for prefix, only in (("", False), ("judged_", True)):
                shares = label_shares(grades, ranked, k, *labels, judged_only=only)
                found |= {f"{prefix}{name}@{k}": value for name, value in shares.items()}
    return found


def figure_text(figures: Mapping[str, float], name: str, gain: str) -> str:
    """A figure as it is printed: with the share of the results that anybody judged, and that of the condensed list.

    Args:
        figures: means of `search_metrics`.
        name: recall@K or ndcg@K.
        gain: what a grade is worth (`gain_name`); nDCG has it in its name.

    Example:
        >>> figures = {"ndcg@10": 0.5, "judged@10": 0.125, "condensed_ndcg@10": 0.75}
        >>> figure_text(figures, "ndcg@10", "2^(rel-1)-1")
        'ndcg@10[2^(rel-1)-1] 0.5000 (judged@10 0.1250, condensed 0.7500)'
    """
    judged, called = f"judged@{name.rpartition('@')[2]}", f"{name}[{gain}]" if name.startswith("ndcg") else name
    condensed = figures[f"condensed_{name}"]
    return f"{called} {figures[name]:.4f} ({judged} {figures[judged]:.4f}, condensed {condensed:.4f})"


def gain_name(judged: Judgements) -> str:
    """What a grade is worth in nDCG where the caller of `search_metrics` does not say; figures differ with it.

    Args:
        judged: graded products.

    Example:
        >>> gain_name(Judgements.from_pairs([0, 0], [3, 5], [1.0, 3.0], 1))
        '2^(rel-1)-1'
    """
    return "2^(rel-1)-1" if _beyond_one(judged) else "the grade"


def _beyond_one(judged: Judgements) -> bool:
    return bool(judged.grades.max(initial=0) > 1)


def exponential_gain(grades: np.ndarray) -> np.ndarray:
    """2^(grade - 1) - 1, at least 0: what Home Depot's 1 to 3 are worth; NaN stays NaN.

    Example:
        >>> exponential_gain(np.array([1.0, 2.0, 3.0])).tolist()
        [0.0, 1.0, 3.0]
    """
    return np.maximum(np.exp2(grades - 1) - 1, 0.0)


def _plain_gain(grades: np.ndarray) -> np.ndarray:
    return np.maximum(grades, 0.0)


def with_intervals(values: Mapping[str, np.ndarray], samples: int = 1000, seed: int = 0) -> dict[str, list[float]]:
    """Mean, low and high end (95 %, over queries) of each figure, for reports.

    Args:
        values: one value a query, by name.
        samples: bootstrap draws.
        seed: of the draws.
    """
    intervals = {name: bootstrap_interval(value, samples=samples, seed=seed) for name, value in values.items()}
    return {name: [round(end, 5) for end in interval] for name, interval in intervals.items()}
