"""The files of one version of an index: vectors, codes, rows, BM25; and what `index.json` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rexbert_hf.hub import versions
from rexbert_hf.retrieval.serving.codes import load_codes
from rexbert_hf.retrieval.serving.index_folder import INDEX_FILE
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_state import IndexState
from rexbert_hf.retrieval.serving.lexical import LexicalIndex
from rexbert_hf.retrieval.serving.product_rows import ProductRows
from rexbert_hf.retrieval.serving.query_model import ModelIdentity
from rexbert_hf.retrieval.serving.vector_store import VECTORS_FILE, VectorStore, VectorWriter, read_segment

FORMAT = 1
"""Of the folder; a reader refuses a later one."""

LEXICAL_FOLDER = "bm25"
COPY_ROWS = 16_384


def write_files(index: IndexState, stage: Path) -> dict[str, Any]:
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


def described(version: Path, facts: Mapping[str, Any]) -> tuple[IndexOptions, ModelIdentity | None]:
    """How an index was built and with what model, as its `index.json` says.

    Args:
        version: the folder, for messages.
        facts: of the file.

    Raises:
        ValueError: if a later release wrote it, or something is missing in it.
    """
    place = version / INDEX_FILE
    needed = ("place", "collection", "columns") if facts.get("backend") == "qdrant" else ("dim",)
    if missing := [key for key in ("format", "options", "model", *needed) if key not in facts]:
        raise ValueError(f"{place} is damaged (it has no '{missing[0]}'): build the index again")
    if not isinstance(facts["format"], int) or facts["format"] > FORMAT:
        raise ValueError(f"{version} was written by a later rexbert-hf (format {facts['format']}): update it")
    try:
        identity = None if facts["model"] is None else ModelIdentity(**facts["model"])
        return IndexOptions.of(**facts["options"]), identity
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} is damaged ({error}): build the index again") from None


def read_files(index: IndexState, version: Path, facts: Mapping[str, Any]) -> None:
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
