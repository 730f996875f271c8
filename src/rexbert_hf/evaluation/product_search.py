"""Product search: how many of a query's relevant products a system finds in the catalogue (QPI-BERT, table 2).

Zero-shot in `ProductSearch`, fine-tuned in `product_search_tuned.py`. Every figure that depends on which products were
judged comes with the share that was, and with the figure of the condensed list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.evaluation.judge import judge_key, judged_figures
from rexbert_hf.evaluation.robustness import KINDS, RARE_BRANDS, names_rare_brand, perturb
from rexbert_hf.evaluation.search_data import Scale, SearchProtocol, load_protocol
from rexbert_hf.evaluation.searchers import BM25, Searcher, make_searcher
from rexbert_hf.evaluation.task import RANDOM, Task, TaskOptions, TaskResult, TaskSource
from rexbert_hf.metrics import Judgements, grades_of, judged_at_k, recall_at_k
from rexbert_hf.retrieval.training.evaluator import search_metrics

PRIMARY = "recall@100"
PAGE = 16
"""Depth of the paper's table 3, at which shares of exact matches and substitutes are reported too."""


class ProductSearch(Task):
    """Zero-shot retrieval over a whole catalogue.

    Home Depot's training file: the catalogue is all 54,667 titles; test queries are those whose SHA-1, modulo 10, is 0
    or 1, and that have a product of relevance 2.33 or above (2,209). Search is exact, 1,000 products deep, cosine of
    embeddings pooled as the model says (mean where it says nothing), texts cut at 64 tokens. Products that nobody
    judged count as not relevant, and as O in E/S/O; `judged_E@100` counts the judged ones only.
    Of a shop's own log (`build_pairs.py`) what was bought is relevant, and what was shown and left alone is not.
    """

    name: ClassVar[str] = "product_search"
    title: ClassVar[str] = "Product search, zero-shot"
    paper: ClassVar[str] = "QPI-BERT, table 2"
    data: ClassVar[str] = "a shop's own log (not public)"
    folder: ClassVar[str] = "homedepot"
    dataset_name: ClassVar[str] = (
        "pairs: query, product_id, title, label or relevance, split; or the folder of ESCI or of build_pairs.py"
    )
    split: ClassVar[str] = (
        "Home Depot: query hash, .7 train, .1 validation, .2 test; other pairs: their own, else .8, .1, .1 by hash"
    )
    metric: ClassVar[str] = PRIMARY
    comparable: ClassVar[str] = "no: the paper's log is not public"
    trains: ClassVar[bool] = False
    keeps_splits: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = (RANDOM, BM25)
    hub_task: ClassVar[str] = "information-retrieval"
    version: ClassVar[int] = 2

    def load(self, source: TaskSource) -> SearchProtocol:
        """As `Task.load`."""
        return load_protocol(source)

    def fingerprint(self, data: SearchProtocol) -> str:
        """As `Task.fingerprint`."""
        return data.fingerprint

    def config(self, options: TaskOptions) -> dict[str, Any]:
        """As `Task.config`, with the judge."""
        judge = {} if options.judge is None else judge_key(options.judge)
        return {**super().config(options), **judge}

    def run(self, model: str, data: SearchProtocol, seed: int, options: TaskOptions) -> TaskResult:
        """As `Task.run`."""
        searcher, notes = make_searcher(model, data.product_texts, seed, options)
        return search_result(searcher, data, options, notes)


def search_result(
    searcher: Searcher, data: SearchProtocol, options: TaskOptions, notes: Sequence[str] = ()
) -> TaskResult:
    """Search the test queries, as they are and perturbed, and measure.

    Args:
        searcher: of the catalogue.
        data: queries and judgements.
        options: with the judge, if any.
        notes: on the searcher.
    """
    ranked, judged = searcher.search(data.query_texts), data.judged
    values = figures_of(ranked, judged, data.scale)
    metrics = {name: float(np.nanmean(value)) for name, value in values.items() if not np.isnan(value).all()}
    said, lost = [f"grades: {data.scale.said}"], 0
    if options.judge is not None:
        figures, lost = judged_figures(ranked, data, options.judge, options.cache_dir)
        metrics |= figures
        said += [f"the judge failed on {lost} results: not kept, the next run asks again"] if lost else []
    counts = {**data.counts, "products": len(data.products)}
    slices = slices_of(searcher, data, ranked)
    return TaskResult(metrics, values[PRIMARY], counts, slices, (*said, *notes), final=not lost)


def figures_of(ranked: np.ndarray, judged: Judgements, scale: Scale) -> dict[str, np.ndarray]:
    """All figures of a ranking, one value a query; nDCG carries the name of its gains.

    Args:
        ranked: product numbers, `[Q, K]`.
        judged: of the same queries.
        scale: of the grades.

    Example:
        >>> from rexbert_hf.evaluation.search_data import ESCI_SCALE
        >>> judged = Judgements.from_pairs([0, 0], [3, 5], [0.66, 1.0], 1)
        >>> found = figures_of(np.array([[3, 5]]), judged, ESCI_SCALE)
        >>> found["recall@10"].tolist(), found["ndcg@10[E1/S.66/C.33/I0]"].round(3).tolist()
        ([1.0], [0.911])
    """
    found: dict[str, np.ndarray] = {}
    for name, gain in scale.gains.items():
        values = search_metrics(ranked, judged, scale.relevant, gain, (10, 100), (scale.exact, scale.substitute))
        found |= {_with_gains(key, name): value for key, value in values.items()}
    found[f"judged@{PAGE}"] = judged_at_k(grades_of(ranked, judged), ranked, PAGE)
    return found


def _with_gains(metric: str, gains: str) -> str:
    return f"{metric}[{gains}]" if "ndcg@" in metric else metric


def slices_of(searcher: Searcher, data: SearchProtocol, ranked: np.ndarray) -> dict[str, float]:
    """R@100 on perturbed queries, and on those that name a rare brand; a slice that no query is in is left out.

    Args:
        searcher: of the catalogue.
        data: queries and judgements.
        ranked: of the queries as they are.
    """
    queries, judged = data.query_texts, data.judged
    relevant = judged.count(data.scale.relevant)

    def recall(found: np.ndarray) -> np.ndarray:
        return recall_at_k(grades_of(found, judged), relevant, 100, data.scale.relevant)

    found = {kind: float(recall(_search_changed(searcher, queries, kind, ranked)).mean()) for kind in KINDS}
    rare = np.array(names_rare_brand(queries, data.product_texts))
    if rare.any():
        found[RARE_BRANDS] = float(recall(ranked)[rare].mean())
    return found


def _search_changed(searcher: Searcher, queries: list[str], kind: str, ranked: np.ndarray) -> np.ndarray:
    """Rankings of the perturbed queries; those that the perturbation left as they are keep theirs."""
    changed = perturb(queries, kind)
    rows = [i for i, (before, after) in enumerate(zip(queries, changed, strict=True)) if before != after]
    if not rows:
        return ranked
    found = ranked.copy()
    found[rows] = searcher.search([changed[i] for i in rows])
    return found
