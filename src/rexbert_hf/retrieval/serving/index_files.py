"""The files of one version of an index: vectors, codes, rows, BM25; and what `index.json` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexbert_hf.hub import versions
from rexbert_hf.retrieval.serving.codes import load_codes
from rexbert_hf.retrieval.serving.lexical import LexicalIndex
from rexbert_hf.retrieval.serving.product_rows import ProductRows
from rexbert_hf.retrieval.serving.vector_store import VECTORS_FILE, VectorStore, VectorWriter, read_segment

if TYPE_CHECKING:
    from rexbert_hf.retrieval.serving.index import ProductIndex

FORMAT = 1
"""Of the folder; a reader refuses a later one."""

LEXICAL_FOLDER = "bm25"
COPY_ROWS = 16_384


def write_files(index: ProductIndex, stage: Path) -> dict[str, Any]:
    """Write all files but `index.json`; returns what that holds.

    Args:
        index: any.
        stage: an empty folder.
    """
    with VectorWriter(stage / VECTORS_FILE, index.dim, index.options.storage) as writer:
        for _, block in index.store.blocks(COPY_ROWS):
            writer.append(block)
    index.rows.save(stage)
    if index.codes is not None:
        index.codes.save(stage)
    if index.options.lexical or index.lexical is not None:
        index.words().save(stage / LEXICAL_FOLDER)
    identity = None if index.identity is None else asdict(index.identity)
    facts = {"format": FORMAT, "products": len(index), "rows": len(index.rows), "dim": index.dim}
    return {**facts, "options": asdict(index.options), "model": identity, "versions": versions()}


def read_files(index: ProductIndex, version: Path, facts: Mapping[str, Any]) -> None:
    """Open the files of a version; vectors and BM25 are mapped.

    Args:
        index: an empty one.
        version: the folder.
        facts: of its `index.json`.

    Raises:
        ValueError: if a file is damaged, or they do not belong together.
    """
    index.version = version
    index.store = VectorStore(int(facts["dim"]), index.options.storage, [read_segment(version / VECTORS_FILE)])
    index.rows = ProductRows.load(version, index.options.filters)
    index.codes = load_codes(version, index.options.kind)
    if (version / LEXICAL_FOLDER).is_dir():
        index.lexical = LexicalIndex.load(version / LEXICAL_FOLDER)
    sizes = {len(index.store), len(index.rows), *([len(index.codes)] if index.codes is not None else [])}
    if len(sizes) != 1:
        raise ValueError(f"{version} is damaged (its files hold {sorted(sizes)} rows): build the index again")
