"""Models, products and vectors that the tests of indexes share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DIM = 32


class HashModel:
    """A text's vector is drawn with its hash as the seed; counts what it encodes."""

    def __init__(self, name: str = "hash", dim: int = DIM) -> None:
        self.name, self.dim, self.seen = name, dim, []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.seen += list(texts)
        seeds = [hashlib.sha1(f"{self.name} {text}".encode()).digest()[:8] for text in texts]
        rows = [np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(self.dim) for seed in seeds]
        return np.array(rows, dtype=np.float32)


def make_products(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Products with every kind of filter column; every seventh lacks a price."""
    products = []
    for i in range(first, first + count):
        product: dict[str, Any] = {
            "product_id": f"p{i}",
            "title": f"thing number {i}",
            "category_path": ["Home", "Lamps"] if i % 10 == 0 else ["Sport", "Shoes", "Running"],
            "brand": ["Acme", "Bolt", "Cord"][i % 3],
            "in_stock": i % 2 == 0,
            "locale": "de" if i % 100 == 0 else "en",
        }
        if i % 7:
            product["price"] = i / 2
        products.append(product)
    return products


def rewrite_facts(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what `index.json` says, as if an earlier version had written it: without a checksum of itself."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts.pop("crc32", None)
    change(facts)
    path.write_text(json.dumps(facts), encoding="utf-8")


def clustered(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Normalised vectors in a few dozen clusters, as those of a catalogue are."""
    centres = np.random.default_rng(1234).standard_normal((40, dim))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact(vectors: np.ndarray, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> list[list[int]]:
    """The best rows of each query, written out in float64."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if mask is not None:
        scores[:, ~mask] = -np.inf
    passing = len(vectors) if mask is None else int(mask.sum())
    return [np.argsort(-row, kind="stable")[: min(k, passing)].tolist() for row in scores]


def recall(found: list[list[tuple[str, float]]], expected: list[list[int]]) -> float:
    """Share of the expected rows that were found; ids are "p" and the row."""
    pairs = zip(found, expected, strict=True)
    return float(
        np.mean([len({name for name, _ in hits} & {f"p{i}" for i in rows}) / len(rows) for hits, rows in pairs])
    )
