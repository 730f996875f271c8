"""Exact search over stored vectors, in blocks: needs numpy alone, and no more memory than a block.

What small catalogues use, what narrow filters use, and what candidates of compressed codes are rescored with.
"""

from __future__ import annotations

import numpy as np

from rexbert_hf.retrieval.serving.vector_store import VectorStore

BLOCK_ROWS = 16_384
"""Rows scored at a time."""

_THREADED = 1 << 18  # multiplications from which OpenBLAS, numpy's library, gives a product to all of its threads
_WORTH_THREADS = 1 << 23  # about a millisecond of one thread

_SPARSE_SHARE = 0.5  # below, rows that pass are gathered; above, whole blocks are scored


def exact_search(
    store: VectorStore, queries: np.ndarray, k: int, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the largest inner products.

    Args:
        store: the vectors.
        queries: float32 `[Q, D]`.
        k: rows wanted; fewer come back where fewer pass.
        mask: bool `[N]`, rows that may be returned; None: all.

    Returns:
        Scores float32 and rows int64, both `[Q, min(k, passing)]`, best first; of equal scores the first row.

    Example:
        >>> store = VectorStore(2)
        >>> store.append(np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32))
        >>> scores, rows = exact_search(store, np.array([[1, 0]], dtype=np.float32), 2)
        >>> rows.tolist(), scores.tolist()
        ([[0, 2]], [[1.0, 0.6000000238418579]])
    """
    passing = len(store) if mask is None else int(np.count_nonzero(mask))
    wanted = min(k, passing)
    best = np.full((len(queries), wanted), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), wanted), -1, dtype=np.int64)
    if wanted == 0:
        return best, rows
    if mask is not None and passing < _SPARSE_SHARE * len(store):
        chosen = np.flatnonzero(mask)
        for start in range(0, passing, BLOCK_ROWS):
            part = chosen[start : start + BLOCK_ROWS]
            best, rows = _merge(best, rows, inner_products(queries, store.take(part)), part)
        return best, rows
    for first, block in store.blocks(BLOCK_ROWS):
        part = np.arange(first, first + len(block))
        scores = inner_products(queries, block)
        if mask is not None:
            scores[:, ~mask[part]] = -np.inf
        best, rows = _merge(best, rows, scores, part)
    return best, rows


def inner_products(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`queries @ rows.T`, a small one on this thread alone.

    OpenBLAS's threads wait for each other, each on a processor of its own. On a busy server they are not there at once:
    a product of 0.1 ms took 8 ms with two threads on two busy cores. So a small one is cut into parts that it does not
    share out.

    Args:
        queries: float32 `[Q, D]`.
        rows: float32 `[N, D]`.

    Returns:
        float32 `[Q, N]`.

    Example:
        >>> inner_products(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)).tolist()
        [[2.0, 2.0, 2.0]]
    """
    cost = queries.size * len(rows)
    if cost <= _THREADED or cost > _WORTH_THREADS or queries.size > _THREADED:
        return queries @ rows.T
    at_once = max(16, _THREADED // queries.size // 16 * 16)  # left over rows of a part are rounded otherwise
    scores = np.empty((len(queries), len(rows)), np.float32)
    for first in range(0, len(rows), at_once):
        np.matmul(queries, rows[first : first + at_once].T, out=scores[:, first : first + at_once])
    return scores


def _merge(best: np.ndarray, rows: np.ndarray, scores: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of what was found before and of a new block."""
    wanted = best.shape[1]
    if len(scores) and scores.shape[1] > wanted:
        top = np.stack([best_places(row, wanted) for row in scores])
        scores, new = np.take_along_axis(scores, top, axis=1), part[top]
    else:
        new = np.broadcast_to(part, scores.shape)
    return sort_hits(np.concatenate([best, scores], axis=1), np.concatenate([rows, new], axis=1), wanted)


def best_places(scores: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest scores, in no order; of equal ones at the cut the first.

    Args:
        scores: `[n]`, more than k.
        k: places wanted.

    Example:
        >>> best_places(np.array([1.0, 5.0, 1.0, 1.0]), 2).tolist()
        [1, 0]
    """
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    return np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])


def sort_hits(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each query, best first; of equal scores the first row.

    Args:
        scores: `[Q, n]`.
        rows: `[Q, n]`.
        k: columns to keep.
    """
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
