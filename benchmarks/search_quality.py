"""Search quality on Home Depot's queries: BM25, MiniLM as it comes, their fusion, a fine-tuned model, and its hybrid.

    python benchmarks/search_quality.py --model output/homedepot [--student output/homedepot-student] [--quick]

The protocol: queries by the sha1 of the search term modulo 10 (0-1 test, 2 validation), relevant from 2.33 on, the
catalogue is all 54,667 titles, nDCG@10 with gains 2^(relevance - 1) - 1. Few products are judged: judged@k and the
figures of the condensed lists (unjudged products left out) stand beside each figure. The hybrid's weight is chosen on
validation queries. The peer of ours is MiniLM as it comes, of the hybrid the fusion of BM25 and MiniLM; goals are for
the figures themselves. Without the data the sample shop is searched, and no goal is judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

import report
from product_text import DATA_DIR
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.serving.lexical import FUSION_CONSTANT, LexicalIndex
from rexbert_hf.retrieval.training.biencoder import MINILM, find_base
from rexbert_hf.retrieval.training.evaluator import DEPTH, part_of, search_metrics, with_intervals
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k
from rexbert_hf.retrieval.training.search_data import TEST, VALIDATION, SearchData, SearchDataSettings, load_search_data

HOMEDEPOT = DATA_DIR / "homedepot" / "train.csv.zip"
GOAL, HYBRID_GOAL = 0.80, 0.84
SHOWN = ("recall@10", "recall@100", "ndcg@10", "judged@10", "judged@100", "condensed_recall@10", "condensed_ndcg@10")
WEIGHTS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
QUICK_PRODUCTS, QUICK_QUERIES = 2_000, 60
Search = dict[int, np.ndarray]
"""Rankings `[Q, K]` of the validation and of the test queries."""


def read() -> tuple[SearchData, bool]:
    """The data, and whether they are the real ones."""
    if not HOMEDEPOT.exists():
        return load_search_data(SearchDataSettings()), False
    columns = {"query": "search_term", "product_id": "product_uid", "relevance": "relevance"}
    titles = {"product_id": "product_uid", "title": "product_title"}
    settings = SearchDataSettings(
        pairs=str(HOMEDEPOT),
        encoding="latin-1",
        pair_columns=dict(columns),
        product_columns=dict(titles),
        relevant=2.33,
    )
    return load_search_data(settings), True


class Bench:
    """Queries, the searched part of the catalogue, and rankings over it."""

    def __init__(self, data: SearchData, quick: bool) -> None:
        self.data = data
        self.queries = {split: data.of(split)[: QUICK_QUERIES if quick else None] for split in (VALIDATION, TEST)}
        needed = data.judged.select(np.concatenate(list(self.queries.values())))
        self.products = part_of(len(data.texts), np.unique(needed.products), QUICK_PRODUCTS if quick else None, 0)
        self.texts = [data.texts[i] for i in self.products]

    def judged(self, split: int) -> Judgements:
        """Judgements of a split, with places in the searched part."""
        judged = self.data.judged.select(self.queries[split])
        return Judgements(judged.offsets, np.searchsorted(self.products, judged.products), judged.grades)

    def lexical(self) -> Search:
        """BM25 with English stems."""
        index = LexicalIndex.build(self.texts)
        texts = {split: [self.data.queries[i] for i in numbers] for split, numbers in self.queries.items()}
        return {split: index.search(queries, DEPTH)[1] for split, queries in texts.items()}

    def dense(self, folder: Path) -> Search:
        """Exact search with a model."""
        model = SentenceTransformer(str(folder))
        products = encode(model, self.texts, "document")
        found = {}
        for split, numbers in self.queries.items():
            queries = encode(model, [self.data.queries[i] for i in numbers], "query")
            found[split] = exact_top_k(queries, products, DEPTH)[1]
        return found

    def figures(self, search: Search, split: int = TEST) -> dict[str, np.ndarray]:
        """All figures, one value a query."""
        return search_metrics(search[split], self.judged(split), self.data.relevant)


def fused(first: np.ndarray, second: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """Reciprocal rank fusion, `[Q, K]`; the second ranking counts `weight` times."""
    ranked = np.full((len(first), DEPTH), -1, dtype=np.int64)
    for i, rows in enumerate(zip(first, second, strict=True)):
        scores: dict[int, float] = {}
        for products, share in zip(rows, (1.0, weight), strict=True):
            for rank, product in enumerate(products[products >= 0].tolist(), start=1):
                scores[product] = scores.get(product, 0.0) + share / (FUSION_CONSTANT + rank)
        best = sorted(scores, key=lambda product: -scores[product])[:DEPTH]
        ranked[i, : len(best)] = best
    return ranked


def fuse_all(first: Search, second: Search, weight: float = 1.0) -> Search:
    """Fusion of both splits."""
    return {split: fused(first[split], second[split], weight) for split in first}


def best_weight(bench: Bench, lexical: Search, dense: Search) -> float:
    """The weight of the dense ranking with the best R@100 on validation queries."""
    found = {}
    for weight in WEIGHTS:
        search = {VALIDATION: fused(lexical[VALIDATION], dense[VALIDATION], weight)}
        found[weight] = float(np.nanmean(bench.figures(search, VALIDATION)["recall@100"]))
    print("hybrid R@100 on validation queries by weight: " + ", ".join(f"{w:g} {r:.4f}" for w, r in found.items()))
    return max(found, key=lambda weight: found[weight])


def main() -> None:
    """Search and print."""
    parser = report.parser(__doc__, f"{QUICK_QUERIES} queries a split over {QUICK_PRODUCTS:,} products")
    parser.add_argument("--model", help="a folder that recipes/finetune_search.py left")
    parser.add_argument("--student", help="a folder that recipes/distil_search.py left")
    options = parser.parse_args()
    data, real = read()
    bench = Bench(data, options.quick)
    sizes = f"{len(bench.queries[TEST]):,} test queries, {len(bench.texts):,} products"
    report.header("search_quality", f"{'Home Depot' if real else 'sample shop'}: {sizes}", ("torch", "bm25s"))
    systems: dict[str, Search] = {"bm25": bench.lexical(), "minilm": bench.dense(find_base(MINILM))}
    systems["rrf(bm25, minilm)"] = fuse_all(systems["bm25"], systems["minilm"])
    for name, folder in (("ours", options.model), ("student", options.student)):
        if folder is None:
            continue
        systems[name] = bench.dense(Path(folder))
        systems[f"rrf(bm25, {name})"] = fuse_all(systems["bm25"], systems[name])
        weight = best_weight(bench, systems["bm25"], systems[name])
        systems[f"hybrid(bm25, {name})"] = fuse_all(systems["bm25"], systems[name], weight)
    values = {name: bench.figures(search) for name, search in systems.items()}
    print_table(values)
    judge = real and not options.quick
    report.finish(reading(name, metric, values, judge) for name in values for metric in SHOWN[:3])


def print_table(values: dict[str, dict[str, np.ndarray]]) -> None:
    """Every figure with its interval over queries."""
    width = max(map(len, values))
    print(f"\n{'':{width}}  " + "  ".join(f"{name:>22}" for name in SHOWN))
    for name, figures in values.items():
        cells = with_intervals({metric: figures[metric] for metric in SHOWN})
        print(f"{name:{width}}  " + "  ".join(f"{m:.3f} [{a:.3f}, {b:.3f}]".rjust(22) for m, a, b in cells.values()))


def reading(name: str, metric: str, values: dict[str, Any], judge: bool) -> report.Reading:
    """One figure with its peer and goal."""
    peers = {"ours": "minilm", "rrf(bm25, ours)": "rrf(bm25, minilm)", "hybrid(bm25, ours)": "rrf(bm25, minilm)"}
    goals = {"ours": GOAL, "hybrid(bm25, ours)": HYBRID_GOAL}
    peer = peers.get(name)
    return report.Reading(
        f"search_quality/{name}/{metric}",
        float(np.nanmean(values[name][metric])),
        float(np.nanmean(values[peer][metric])) if peer else None,
        goal=goals.get(name) if judge and metric == "recall@100" else None,
        judged="ours",
    )


if __name__ == "__main__":
    main()
