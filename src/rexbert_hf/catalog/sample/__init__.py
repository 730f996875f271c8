"""The built-in sample shop: deterministic code and word lists, no download; the default of every recipe.

`size` is the number of products; every other kind scales with it. Kinds that are loaded with the same seed and size
belong to one shop: a product id in one is a product of the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from datasets import Dataset, Features, Value

from ..records import RECORDS
from .behaviour import Intent, Shelves, make_associations, make_events, make_queries, make_query_products
from .chinese import make_chinese_reviews
from .crawl import make_crawl
from .multilingual import make_multilingual
from .opinions import make_questions, make_reviews
from .products import SampleProduct, make_products
from .recipes import make_recipe_pages
from .web import make_long_documents, make_pages

SAMPLE_SIZE = 2_400
"""Products in the shop unless told otherwise."""

_Rows = list[dict[str, Any]]


@lru_cache(maxsize=4)
def _products(seed: int, size: int) -> list[SampleProduct]:
    return make_products(seed, size)


@lru_cache(maxsize=4)
def _intents(seed: int, size: int) -> list[Intent]:
    return make_queries(seed, _products(seed, size))


@lru_cache(maxsize=4)
def _pages(seed: int, size: int) -> _Rows:
    return make_pages(seed, _products(seed, size))


def _shop_texts(seed: int, size: int) -> list[str]:
    """Titles, descriptions, reviews, questions with their contexts, queries and shop pages, shuffled."""
    texts = [product.title for product in _products(seed, size)]
    texts += [product.description for product in _products(seed, size)]
    texts += [row["text"] for row in make_reviews(seed, _products(seed, size))]
    texts += [f"{row['question']} {row['context']}" for row in make_questions(seed, _products(seed, size))]
    texts += [intent.query for intent in _intents(seed, size)]
    texts += [page["text"] for page in _pages(seed, size) if page["label"] == "shop"]
    random.Random(f"shop text {seed}").shuffle(texts)
    return texts


def _crawl(seed: int, size: int) -> _Rows:
    return make_crawl("crawl", seed, _pages(seed, size), _nouns(seed, size))


def _food_crawl(seed: int, size: int) -> _Rows:
    """Recipes among everything else: the shop pages of the sample web are ordinary pages here."""
    others = [{**page, "label": "general"} for page in _pages(seed, size)]
    return make_crawl("food", seed, make_recipe_pages(seed, size) + others, _nouns(seed, size))


def _nouns(seed: int, size: int) -> list[str]:
    return sorted({product.leaf.name.lower() for product in _products(seed, size)})


def _as_rows(texts: Iterable[str]) -> _Rows:
    return [{"text": text} for text in texts]


_MAKERS: dict[str, Callable[[int, int], _Rows]] = {
    "products": lambda seed, size: [product.record() for product in _products(seed, size)],
    "queries": lambda seed, size: [intent.record() for intent in _intents(seed, size)],
    "query_products": lambda seed, size: make_query_products(
        seed, Shelves(_products(seed, size)), _intents(seed, size)
    ),
    "events": lambda seed, size: make_events(seed, Shelves(_products(seed, size)), _intents(seed, size)),
    "associations": lambda seed, size: make_associations(seed, Shelves(_products(seed, size))),
    "reviews": lambda seed, size: make_reviews(seed, _products(seed, size)),
    "questions": lambda seed, size: make_questions(seed, _products(seed, size)),
    "web": _pages,
    "crawl": _crawl,
    "food_crawl": _food_crawl,
    "general_text": lambda seed, size: _as_rows(
        page["text"] for page in _pages(seed, size) if page["label"] == "general"
    ),
    "shop_text": lambda seed, size: _as_rows(_shop_texts(seed, size)),
    "long_text": lambda seed, size: _as_rows(make_long_documents(seed, size)),
    "multilingual_text": make_multilingual,
    "chinese_reviews": make_chinese_reviews,
}
SAMPLE_KINDS = tuple(_MAKERS)
"""What `load_sample` knows: the records, two crawls, four views with a `text` column, and labelled reviews."""

_FEATURES = {**RECORDS, "crawl": RECORDS["web"], "food_crawl": RECORDS["web"]}
_FEATURES["multilingual_text"] = Features({"text": Value("string"), "language": Value("string")})
_FEATURES["chinese_reviews"] = Features({"text": Value("string"), "category": Value("string")})
_TEXT_VIEW = Features({"text": Value("string")})


def load_sample(kind: str, seed: int = 0, size: int | None = None) -> Dataset:
    """Generate one kind of data of the sample shop; calls with equal arguments share one result.

    Kinds: the records (`products`, `queries`, `query_products`, `events`, `associations`, `reviews`, `questions`,
    `web`), the crawls `crawl` (the web with frames, copies, other languages, empty pages) and `food_crawl` (the same
    with recipes, labelled "recipe" and "general"), and the texts `general_text` (prose, no shop), `shop_text` (titles,
    descriptions, reviews, questions, queries, shop pages), `long_text` (documents of at least 3,000 words) and
    `multilingual_text` (shop text in German, Spanish, Chinese and Indonesian, with its `language`), and
    `chinese_reviews` with the `category` of what they are about.

    Args:
        kind: one of `SAMPLE_KINDS`.
        seed: draws another sample of the same world (same tree, brands and habits).
        size: products in the shop (default 2,400); the other kinds scale with it.

    Raises:
        ValueError: if the kind is unknown or `size` is below 2.

    Example:
        >>> load_sample("products", size=10).column_names[:3], len(load_sample("reviews", size=10))
        (['product_id', 'title', 'description'], 20)
    """
    if kind not in _MAKERS:
        raise ValueError(f"unknown sample kind '{kind}': choose one of {', '.join(SAMPLE_KINDS)}")
    size = SAMPLE_SIZE if size is None else size
    if size < 2:
        raise ValueError(f"the sample shop needs at least 2 products, got size={size}")
    return _load(kind, seed, size)


@lru_cache(maxsize=32)
def _load(kind: str, seed: int, size: int) -> Dataset:
    return Dataset.from_list(_MAKERS[kind](seed, size), features=_FEATURES.get(kind, _TEXT_VIEW))
