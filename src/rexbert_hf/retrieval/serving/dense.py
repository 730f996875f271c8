"""Search by vectors: which way is right for a filter, and how candidates of codes get their scores.

Few rows that pass are compared one by one; otherwise graph or lists are searched with a selector, longer the fewer rows
pass. Both find what the filter keeps, at 1 % as at 100 %.
"""

from __future__ import annotations

import numpy as np

from rexbert_hf.retrieval.serving.codes import Codes, FaissCodes
from rexbert_hf.retrieval.serving.exact import exact_search, sort_hits
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.vector_store import VectorStore

EXACT_ROWS = 2_000
"""So many rows are always compared one by one."""

_WALK_COST = 12.0
# A candidate of a graph walk costs about as much as fetching and comparing 12 rows: it visits some 20 neighbours, each
# a cache miss. A walk that keeps `ef` candidates of the rows that pass visits ef / share of all.


def walk_pays(passing: int, rows: int, ef: int) -> bool:
    """Whether walking the graph is cheaper than comparing with every row that passes.

    Args:
        passing: rows that pass the filter.
        rows: rows in the graph.
        ef: candidates kept by a walk without filter.

    Example:
        >>> walk_pays(10_000, 1_000_000, ef=200), walk_pays(100_000, 1_000_000, ef=200)
        (False, True)
    """
    return passing > EXACT_ROWS and passing * (passing / rows) > _WALK_COST * ef


def dense_search(
    store: VectorStore, codes: Codes | None, options: IndexOptions, queries: np.ndarray, k: int, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of each query among those that pass.

    Args:
        store: the vectors.
        codes: of all its rows; None compares with every row.
        options: of the index.
        queries: float32 `[Q, D]`.
        k: rows wanted.
        mask: bool `[N]`, rows that pass; None: all.

    Returns:
        Scores and rows `[Q, min(k, passing)]`, best first.
    """
    passing = len(store) if mask is None else int(np.count_nonzero(mask))
    wanted = min(k, passing)
    candidates = min(options.candidates(wanted), passing)
    ef = options.ef(wanted)
    graph = isinstance(codes, FaissCodes)
    if codes is None or wanted == 0 or (graph and not walk_pays(passing, len(store), ef)):
        return exact_search(store, queries, k, mask)
    if mask is not None and graph:
        ef = min(len(store), round(ef * len(store) / passing))
    scores, rows = codes.search(queries, candidates, ef, mask)
    if options.kind != "hnsw":
        scores = rescore(store, queries, rows)
    scores, rows = sort_hits(np.where(rows >= 0, scores, -np.inf), rows, wanted)
    short = np.flatnonzero((rows < 0).any(axis=1))  # a part of the graph that the walk did not reach
    if len(short):
        scores[short], rows[short] = exact_search(store, queries[short], k, mask)
    return scores, rows


def rescore(store: VectorStore, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products of each query with its candidates, `[Q, n]`.

    Args:
        store: the vectors.
        queries: float32 `[Q, D]`.
        rows: `[Q, n]`; -1 gives minus infinity.
    """
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for i, query in enumerate(queries):
        there = rows[i] >= 0
        scores[i, there] = store.take(rows[i, there]) @ query
    store.release(rows.size)
    return scores
