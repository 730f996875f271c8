"""Embeddings of many texts and exact nearest products, in blocks: what evaluation and mining stand on.

No score matrix of all queries and all products is ever held: memory is one block of scores and the best k so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

QUERY_BLOCK, PRODUCT_BLOCK = 1024, 16_384
"""Scores of one block take 64 MiB."""


def encode(
    model: Any,
    texts: Sequence[str],
    role: Literal["query", "document"],
    batch_size: int = 64,
    bf16: bool = False,
) -> np.ndarray:
    """Normalised embeddings, float32 `[N, D]`; texts are sorted by length on the way.

    Args:
        model: a `SentenceTransformer`.
        texts: of one kind.
        role: query or document; matters where each has an encoder of its own.
        batch_size: texts of one forward pass.
        bf16: bfloat16 autocast.
    """
    if not texts:
        return np.zeros((0, model.get_embedding_dimension()), dtype=np.float32)
    method = model.encode_query if role == "query" else model.encode_document
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        vectors = method(
            list(texts),
            batch_size=batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_tensor=True,
        )
    return vectors.float().cpu().numpy()


def encode_to(
    path: Path,
    model: Any,
    texts: Sequence[str],
    role: Literal["query", "document"],
    batch_size: int = 64,
    bf16: bool = False,
) -> np.ndarray:
    """`encode` into a NumPy file, block by block: vectors of a large catalogue need no memory; mapped, `[N, D]`.

    Args:
        path: of the file, which must end with ".npy".
        model: as in `encode`.
        texts: as in `encode`.
        role: as in `encode`.
        batch_size: as in `encode`.
        bf16: as in `encode`.
    """
    shape = len(texts), model.get_embedding_dimension()
    if not len(texts):
        np.save(path, np.zeros(shape, dtype=np.float32))
        return np.load(path)
    file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, len(texts), PRODUCT_BLOCK):
        file[start : start + PRODUCT_BLOCK] = encode(
            model, texts[start : start + PRODUCT_BLOCK], role, batch_size, bf16
        )
    file.flush()
    del file
    return np.load(path, mmap_mode="r", allow_pickle=False)


def exact_top_k(
    queries: np.ndarray, products: np.ndarray, k: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k products with the highest inner product, best first.

    Args:
        queries: `[Q, D]`.
        products: `[P, D]`, in memory or mapped; k beyond P is cut to P.
        k: how many.
        among: numbers of the products that are looked at, each once; None for all.

    Returns:
        Scores float32 `[Q, K]` and product numbers int64 `[Q, K]`; equal scores may come in any order.

    Raises:
        ValueError: for vectors that are not finite: they have no order.

    Example:
        >>> scores, found = exact_top_k(np.eye(2, dtype=np.float32), np.eye(3, 2, dtype=np.float32), k=2)
        >>> found[:, 0].tolist()
        [0, 1]
    """
    if among is not None and len(among) == len(products):
        among = None  # a mapped file is then read by slices
    _check_finite("query", queries, QUERY_BLOCK, None)
    _check_finite("product", products, PRODUCT_BLOCK, among)
    k = min(k, len(products if among is None else among))
    scores = np.empty((len(queries), k), dtype=np.float32)
    found = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = torch.from_numpy(np.array(queries[start : start + QUERY_BLOCK], dtype=np.float32))
        best, number = _best(block, products, k, among)
        scores[start : start + len(block)], found[start : start + len(block)] = best.numpy(), number.numpy()
    return scores, found


def _rows(start: int, size: int, among: np.ndarray | None) -> slice | np.ndarray:
    """A block's rows; a mapped file is read by slices, and by numbers only where not all are looked at."""
    return slice(start, start + size) if among is None else among[start : start + size]


def _check_finite(name: str, vectors: np.ndarray, size: int, among: np.ndarray | None) -> None:
    for start in range(0, len(vectors if among is None else among), size):
        finite = np.isfinite(vectors[_rows(start, size, among)]).all(axis=1)
        if not finite.all():
            place = start + int(np.flatnonzero(~finite)[0])
            row = place if among is None else int(among[place])
            raise ValueError(f"{name} {row} has an embedding with NaN or infinite numbers: retrain or re-encode")


def _best(
    queries: torch.Tensor, products: np.ndarray, k: int, among: np.ndarray | None
) -> tuple[torch.Tensor, torch.Tensor]:
    best, number = queries.new_zeros(len(queries), 0), torch.zeros(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(products if among is None else among), PRODUCT_BLOCK):
        # A block at a time: a mapped file stays on disk (and is read-only, which torch does not take).
        part = np.require(products[_rows(start, PRODUCT_BLOCK, among)], dtype=np.float32, requirements=["C", "W"])
        scores = queries @ torch.from_numpy(part).T
        top, place = scores.topk(min(k, scores.shape[1]), dim=1)
        best, number = torch.cat([best, top], dim=1), torch.cat([number, place + start], dim=1)
        if best.shape[1] > k:
            best, order = best.topk(k, dim=1)
            number = number.gather(1, order)
    best, order = best.sort(dim=1, descending=True, stable=True)
    number = number.gather(1, order)
    return best, number if among is None else torch.from_numpy(among)[number]
