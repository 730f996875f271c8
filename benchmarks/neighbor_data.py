"""Real product associations for the benchmark of neighbour reconstruction, each with texts and what must stay together.

Products with equal text are one product here: no method could tell them apart, and none should gain by it.
"""

from __future__ import annotations

import gzip
import html
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from product_text import DATA_DIR
from rexbert_hf.catalog import load_sample, normalize_text
from rexbert_hf.objectives import AssociationGraph


@dataclass(frozen=True)
class Shop:
    """Products and who belongs with whom.

    Attributes:
        name: of the data set.
        texts: content by product.
        graph: associations.
        groups: what stays on one side of the split, by product.
    """

    name: str
    texts: dict[str, str]
    graph: AssociationGraph
    groups: dict[str, Any]


def clean(text: str) -> str:
    """Text without tags, entities and runs of blanks."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text))).strip()


def shop(name: str, texts: dict[str, str], graph: AssociationGraph, groups: dict[str, Any] | None = None) -> Shop:
    """Merge products with equal text, keeping the first of each."""
    first: dict[str, str] = {}
    stands_for = {product: first.setdefault(normalize_text(text), product) for product, text in texts.items() if text}
    pairs = ((graph.product_ids[i], graph.product_ids[j]) for i, j in graph.pairs())
    merged = AssociationGraph.from_pairs(
        ((stands_for[a], stands_for[b]) for a, b in pairs if a in stands_for and b in stands_for), first.values()
    )
    kept = {product: texts[product] for product in first.values()}
    return Shop(name, kept, merged, {product: groups[product] if groups else product for product in kept})


def gift_cards() -> Shop:
    """Titles of Amazon's gift cards and their also_buy lists."""
    with gzip.open(DATA_DIR / "amazon_gift_cards" / "meta_Gift_Cards.json.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    graph = AssociationGraph.from_pairs(((row["asin"], row["also_buy"]) for row in rows), [row["asin"] for row in rows])
    return shop("gift_cards", {row["asin"]: clean(row["title"]) for row in rows}, graph)


def online_retail(min_count: int = 20) -> Shop:
    """Descriptions of a gift wholesaler, and what at least `min_count` baskets hold together."""
    table = pq.read_table(DATA_DIR / "online_retail" / "online_retail.parquet")
    baskets: dict[Any, list[str]] = defaultdict(list)
    for row in table.select(["CustomerID", "InvoiceDate", "Description"]).to_pylist():
        if row["Description"] and row["CustomerID"] is not None and row["CustomerID"] == row["CustomerID"]:
            baskets[row["CustomerID"], row["InvoiceDate"]].append(clean(row["Description"]))
    graph = AssociationGraph.from_baskets(baskets.values(), min_count=min_count)
    return shop("online_retail", {str(text): str(text).lower() for text in graph.product_ids}, graph)


def hm_baskets() -> Shop:
    """Articles of H&M with names and descriptions; baskets; all colours of an article stay together."""
    folder = DATA_DIR / "hm_baskets"
    columns = ["article_id", "product_code", "prod_name", "product_type_name", "colour_group_name", "detail_desc"]
    rows = pq.read_table(folder / "articles.parquet", columns=columns).to_pylist()
    lines = (folder / "baskets.tsv").read_text(encoding="utf-8").splitlines()
    graph = AssociationGraph.from_baskets((line.split() for line in lines), [row["article_id"] for row in rows])
    texts = {
        row["article_id"]: clean(
            f"{row['prod_name']}, {row['colour_group_name']} {row['product_type_name']}. {row['detail_desc'] or ''}"
        )
        for row in rows
    }
    return shop("hm_baskets", texts, graph, {row["article_id"]: row["product_code"] for row in rows})


def sample_shop() -> Shop:
    """The built-in sample shop, where the real data is not there."""
    products = load_sample("products")
    texts = {row["product_id"]: row["title"] for row in products}
    return shop("sample_shop", texts, AssociationGraph.from_pairs(load_sample("associations"), texts))


READERS: dict[str, tuple[str, Callable[[], Shop]]] = {
    "gift_cards": ("amazon_gift_cards", gift_cards),
    "online_retail": ("online_retail", online_retail),
    "hm_baskets": ("hm_baskets", hm_baskets),
}
"""Folder and reader of each data set."""


def shops(names: Iterable[str]) -> list[Shop]:
    """The data sets that are there; the sample shop if none is."""
    found = [READERS[name][1]() for name in names if Path(DATA_DIR / READERS[name][0]).is_dir()]
    return found or [sample_shop()]
