"""Hard negatives: what the model itself finds for a training query and nobody judged relevant, clicked or bought.

Products are encoded into a mapped file and searched in blocks, exactly; what is kept is one int32 table `[Q, N]`,
whatever the catalogue's size. The first ranks are skipped and products close to the positives left out, because most of
those answer the query.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.retrieval.training.exact_search import QUERY_BLOCK, encode, encode_to, exact_top_k
from rexbert_hf.retrieval.training.losses import KnownPositives
from rexbert_hf.retrieval.training.search_data import TRAIN, SearchData
from rexbert_hf.training.checkpoint import STAGING

logger = logging.getLogger(__name__)


@dataclass
class MiningSettings:
    """How hard negatives are found.

    Attributes:
        keep: negatives of a query, at most depth - skip.
        skip: first ranks that are left out.
        depth: ranks that are looked at.
        max_ratio: negatives whose cosine is above this share of the best positive's are left out; None keeps them.
        refresh_epochs: mine anew after so many epochs.
    """

    keep: int = 20
    skip: int = 10
    depth: int = 100
    max_ratio: float | None = 0.95
    refresh_epochs: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.skip < self.depth or self.keep < 1 or self.refresh_epochs <= 0:
            raise ValueError("mining needs 0 <= skip < depth, keep of at least 1, and refresh_epochs above 0")
        left = self.depth - self.skip
        if self.keep > left:
            raise ValueError(
                f"mining.keep {self.keep} is more than the {left} ranks that mining.depth {self.depth} leaves after"
                f" mining.skip {self.skip}: raise depth, or set keep to {left}"
            )


def mine_negatives(
    model: Any,
    data: SearchData,
    settings: MiningSettings,
    batch_size: int = 64,
    bf16: bool = False,
    seed: int = 0,
    folder: Path | None = None,
) -> np.ndarray:
    """Mine for all training queries.

    Args:
        model: the bi-encoder as it is now.
        data: catalogue, queries, judgements.
        settings: how.
        batch_size: texts of one forward pass.
        bf16: bfloat16 autocast.
        seed: of the choice where more are found than kept.
        folder: where vectors of products lie meanwhile; None for the system's folder of temporary files.

    Returns:
        int32 `[Q, keep]` over all queries of the data, -1 in the last places where there are fewer.
    """
    training = model.training
    model.eval()
    queries = data.of(TRAIN)
    with temporary_folder(folder, f"{STAGING}vectors-") as place:
        query_vectors = encode(model, [data.queries[i] for i in queries], "query", batch_size, bf16)
        products = encode_to(Path(place) / "products.npy", model, data.texts, "document", batch_size, bf16)
        model.train(training)
        table = _table(data, settings, queries, query_vectors, products, seed)
        del products  # the file is mapped
    share = (table[queries] >= 0).mean()
    logger.info("mined %.1f negatives a query for %d queries", share * settings.keep, len(queries))
    return table


def _table(
    data: SearchData,
    settings: MiningSettings,
    queries: np.ndarray,
    query_vectors: np.ndarray,
    products: np.ndarray,
    seed: int,
) -> np.ndarray:
    known = KnownPositives(data.groups, data.judged, data.relevant, data.neither)
    described = np.flatnonzero(data.described)  # a product without text is nobody's negative: it says nothing
    table = np.full((len(data.queries), settings.keep), -1, dtype=np.int32)
    rng = np.random.default_rng(seed)
    for start in range(0, len(queries), QUERY_BLOCK):
        rows = queries[start : start + QUERY_BLOCK]
        vectors = query_vectors[start : start + QUERY_BLOCK]
        scores, numbers = exact_top_k(vectors, products, settings.depth, described)
        for row, vector, score, found in zip(rows, vectors, scores, numbers, strict=True):
            limit = None if settings.max_ratio is None else settings.max_ratio * _best(data, row, vector, products)
            good = _allowed(int(row), found, score, limit, known, settings.skip)
            chosen = rng.permutation(found[good])[: settings.keep]
            table[row, : len(chosen)] = chosen
    return table


def _best(data: SearchData, query: int, vector: np.ndarray, products: np.ndarray) -> float:
    """Cosine of a query with the best of its relevant products."""
    low, high = data.judged.offsets[query : query + 2]
    right = data.judged.products[low:high][data.judged.grades[low:high] >= data.relevant]
    return float((products[right] @ vector).max())


def _allowed(
    query: int, found: np.ndarray, scores: np.ndarray, limit: float | None, known: KnownPositives, skip: int
) -> np.ndarray:
    """Which of the products found for a query may be its negatives, bool `[depth]`."""
    answers = known.matrix(torch.tensor([query]), torch.from_numpy(np.maximum(found, 0)))[0].numpy()
    allowed = ~answers & (found >= 0)
    if limit is not None:
        allowed &= scores <= limit
    allowed[:skip] = False
    return allowed
