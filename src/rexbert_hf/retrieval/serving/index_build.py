"""Filling an index in batches: products to vectors on disk, then codes over them."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.retrieval.serving.index_state import IndexState
from rexbert_hf.retrieval.serving.product_rows import Batch, batches
from rexbert_hf.retrieval.serving.search_index import checked_documents
from rexbert_hf.retrieval.serving.vector_store import VECTORS_FILE, VectorStore, VectorWriter, read_segment

logger = logging.getLogger(__name__)

COPY_ROWS = 16_384
"""Vectors copied at a time."""


def fill_index(index: IndexState, products: Any, vectors: np.ndarray | None, work_dir: str | Path | None) -> None:
    """Encode products into a scratch file and build the codes.

    Args:
        index: an empty one.
        products: as for `ProductIndex.build`.
        vectors: `[N, D]` in place of encoding.
        work_dir: where the scratch file lies.

    Raises:
        ValueError: if there is no product, or vectors do not fit them.
    """
    scratch = tempfile.TemporaryDirectory[str](dir=work_dir, prefix=".index-")
    path = Path(scratch.name) / VECTORS_FILE
    writer: VectorWriter | None = None
    skipped = repeated = 0
    try:
        for batch in batches(products, index.options):
            skipped += batch.skipped
            repeated += batch.repeated + index.kill(index.rows.find(batch.ids))
            if not batch.ids:
                continue
            found = index.encode(batch) if vectors is None else _given(vectors, batch, len(index.rows))
            found = checked_documents(found, batch.ids, index.options.metric)
            writer = writer or VectorWriter(path, found.shape[1], index.options.storage)
            writer.append(found)
            index.rows.append(batch)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise ValueError(f"no product to index ({skipped} had no text): give products with a title")
    if vectors is not None and len(vectors) != len(index.rows):
        raise ValueError(f"{len(vectors)} vectors for {len(index.rows)} products: one for each is due")
    for count, what in ((skipped, "without any text left out"), (repeated, "replaced by a later one of their id")):
        if count:
            logger.warning("%d products %s", count, what)
    _map(index, scratch)
    index.build_search()


def _given(vectors: np.ndarray, batch: Batch, first: int) -> np.ndarray:
    if batch.skipped or batch.repeated:
        raise ValueError("with vectors given, every product needs a text and an id of its own")
    found = vectors[first : first + len(batch.ids)]
    if len(found) < len(batch.ids):
        raise ValueError(f"{len(vectors)} vectors for more products: one for each is due")
    return found


def compact_index(index: IndexState) -> None:
    """Copy the living rows into a scratch file and build the codes again.

    Args:
        index: any.
    """
    rows = np.flatnonzero(index.rows.alive)
    scratch = tempfile.TemporaryDirectory[str](prefix=".index-")
    with VectorWriter(Path(scratch.name) / VECTORS_FILE, index.dim, index.options.storage) as writer:
        for start in range(0, len(rows), COPY_ROWS):
            writer.append(index.store.take(rows[start : start + COPY_ROWS]))
    index.rows.keep(rows)
    _map(index, scratch)
    index.build_search()


def _map(index: IndexState, scratch: tempfile.TemporaryDirectory[str]) -> None:
    """Read the vectors from the scratch file, which lives as long as the index needs it."""
    segment = read_segment(Path(scratch.name) / VECTORS_FILE)
    index.store = VectorStore(segment.data.shape[1], index.options.storage, [segment])
    index.scratch = scratch
