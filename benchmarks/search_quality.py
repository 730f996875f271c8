"""Search quality on Home Depot's queries: BM25, MiniLM as it comes, their fusion, a fine-tuned model, and its hybrid.

    python benchmarks/search_quality.py --model output/homedepot [--student output/homedepot-student] \
        [--stock output/homedepot-stock] [--quick]

The protocol: queries by the sha1 of the search term modulo 10 (0-1 test, 2 validation), relevant from 2.33 on, the
catalogue is all 54,667 titles, nDCG@10 with gains 2^(relevance - 1) - 1. Few products are judged: judged@k and the
figures of the condensed lists (unjudged products left out) stand beside each figure. The hybrid is that of
`ProductIndex`, its dense_weight chosen on validation queries; "spelt" queries are first put into the catalogue's
spelling (spelling=True), for all systems alike. The peer of ours is MiniLM as it comes, of the hybrid the fusion of
BM25 and MiniLM; with --stock it is MiniLM fine-tuned by sentence-transformers alone (`stock_search.py`: one epoch by
its defaults, half an hour on one core if the folder does not hold it), and its hybrid, whose weight is chosen alike.
Goals are for the figures themselves. Without the data the sample shop is searched, and no goal is judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

import report
from product_text import DATA_DIR
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.serving.lexical import LexicalIndex, fuse
from rexbert_hf.retrieval.serving.search_index import FUSED_A_HIT
from rexbert_hf.retrieval.serving.spelling import Speller
from rexbert_hf.retrieval.training.biencoder import MINILM, find_base
from rexbert_hf.retrieval.training.evaluator import DEPTH, gain_name, search_metrics, searched_products, with_intervals
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k
from rexbert_hf.retrieval.training.search_data import TEST, VALIDATION, SearchData, SearchDataSettings, load_search_data
from stock_search import train_stock

HOMEDEPOT = DATA_DIR / "homedepot" / "train.csv.zip"
GOAL, HYBRID_GOAL = 0.80, 0.84
SHOWN = ("recall@10", "recall@100", "ndcg@10", "judged@10", "judged@100")
SHOWN += ("condensed_recall@10", "condensed_recall@100", "condensed_ndcg@10")
WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
SPELT = " spelt"
FUSED = FUSED_A_HIT * DEPTH
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
        split_rule="sha1_mod_10",
        relevant=2.33,
    )
    return load_search_data(settings), True


class Bench:
    """Queries, the searched part of the catalogue, and rankings over it."""

    def __init__(self, data: SearchData, quick: bool) -> None:
        self.data = data
        self.queries = {split: data.of(split)[: QUICK_QUERIES if quick else None] for split in (VALIDATION, TEST)}
        needed = data.judged.select(np.concatenate(list(self.queries.values())))
        self.products = searched_products(data, needed, QUICK_PRODUCTS if quick else None)
        self.texts = [data.texts[i] for i in self.products]

    def judged(self, split: int) -> Judgements:
        """Judgements of a split, with places in the searched part."""
        judged = self.data.judged.select(self.queries[split])
        return Judgements(judged.offsets, np.searchsorted(self.products, judged.products), judged.grades)

    def asked(self, speller: Speller | None) -> dict[int, list[str]]:
        """The queries of both splits, as typed or as the catalogue spells them."""
        texts = {split: [self.data.queries[i] for i in numbers] for split, numbers in self.queries.items()}
        return texts if speller is None else {s: [speller.correct(text) for text in texts[s]] for s in texts}

    def lexical(self, spellers: dict[str, Speller | None]) -> dict[str, Search]:
        """BM25 with English stems, by spelling."""
        index = LexicalIndex.build(self.texts)
        return {
            how: {split: index.search(queries, FUSED)[1] for split, queries in self.asked(speller).items()}
            for how, speller in spellers.items()
        }

    def dense(self, folder: Path, spellers: dict[str, Speller | None]) -> dict[str, Search]:
        """Exact search with a model, by spelling."""
        model = SentenceTransformer(str(folder))
        products, found = encode(model, self.texts, "document"), {}
        for how, speller in spellers.items():
            vectors = {split: encode(model, texts, "query") for split, texts in self.asked(speller).items()}
            found[how] = {split: exact_top_k(v, products, FUSED)[1] for split, v in vectors.items()}
        return found

    def figures(self, search: Search, split: int = TEST) -> dict[str, np.ndarray]:
        """All figures, one value a query."""
        return search_metrics(search[split][:, :DEPTH], self.judged(split), self.data.relevant)


def fused(first: np.ndarray, second: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """The index's reciprocal rank fusion, `[Q, K]`; the second ranking counts `weight` times."""
    ranked = np.full((len(first), DEPTH), -1, dtype=np.int64)
    for i, rows in enumerate(zip(first, second, strict=True)):
        rankings = [[(product, 0.0) for product in products[products >= 0].tolist()] for products in rows]
        best = fuse(rankings, DEPTH, (1.0, weight))
        ranked[i, : len(best)] = [product for product, _ in best]
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
    print(
        "dense_weight and R@100 of the hybrid on validation queries: "
        + ", ".join(f"{w:g} {r:.4f}" for w, r in found.items())
    )
    return max(found, key=lambda weight: found[weight])


def main() -> None:
    """Search and print."""
    parser = report.parser(__doc__, f"{QUICK_QUERIES} queries a split over {QUICK_PRODUCTS:,} products")
    parser.add_argument("--model", help="a folder that recipes/finetune_search.py left")
    parser.add_argument("--student", help="a folder that recipes/distil_search.py left")
    parser.add_argument("--stock", help="a folder for MiniLM fine-tuned by sentence-transformers alone")
    options = parser.parse_args()
    data, real = read()
    if options.stock and not (Path(options.stock) / "modules.json").exists():
        train_stock(data, find_base(MINILM), Path(options.stock))
    bench = Bench(data, options.quick)
    sizes = f"{len(bench.queries[TEST]):,} test queries, {len(bench.texts):,} products"
    sizes += f"; gains of nDCG: {gain_name(data.judged)}"
    report.header("search_quality", f"{'Home Depot' if real else 'sample shop'}: {sizes}", ("torch", "bm25s"))
    spellers: dict[str, Speller | None] = {"": None, SPELT: Speller.of_texts(bench.texts)}
    changed = sum(a != b for a, b in zip(*(bench.asked(speller)[TEST] for speller in spellers.values()), strict=True))
    print(f"{changed:,} of the test queries are spelt otherwise in the catalogue")
    models = {"minilm": find_base(MINILM), "stock": options.stock, "ours": options.model, "student": options.student}
    found = {name: bench.dense(Path(folder), spellers) for name, folder in models.items() if folder is not None}
    systems: dict[str, Search] = {}
    for how, lexical in bench.lexical(spellers).items():
        systems[f"bm25{how}"] = lexical
        for name, dense in found.items():
            systems[f"{name}{how}"] = dense[how]
            systems[f"rrf(bm25, {name}){how}"] = fuse_all(lexical, dense[how])
            if name != "minilm":
                weight = best_weight(bench, lexical, dense[how])
                systems[f"hybrid(bm25, {name}){how}"] = fuse_all(lexical, dense[how], weight)
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
    plain, how = name.removesuffix(SPELT), SPELT if name.endswith(SPELT) else ""
    other = "stock" if "stock" in values else "minilm"
    hybrid = "hybrid(bm25, stock)" if other == "stock" else "rrf(bm25, minilm)"
    peers = {"ours": other, "rrf(bm25, ours)": f"rrf(bm25, {other})", "hybrid(bm25, ours)": hybrid}
    goals = {"ours": GOAL, "hybrid(bm25, ours)": HYBRID_GOAL}
    peer = peers[plain] + how if plain in peers else None
    return report.Reading(
        f"search_quality/{name}/{metric}",
        float(np.nanmean(values[name][metric])),
        float(np.nanmean(values[peer][metric])) if peer else None,
        goal=goals.get(plain) if judge and metric == "recall@100" else None,
        judged="ours",
    )


if __name__ == "__main__":
    main()
