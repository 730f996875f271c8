"""A recipe's associations between the documents it trains on.

What the sources know of products lies beside their tokens: which document is the content of which product id. Products
with equal text share one, and those held out have none, so nothing of them is trained on.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rexbert_hf.catalog import load_sample, read_records, text_digests
from rexbert_hf.catalog.columns import as_text
from rexbert_hf.data import TokenisedDataset
from rexbert_hf.data.encode import TextEncoder
from rexbert_hf.hub.run_file import checksum, write_whole
from rexbert_hf.objectives import AssociationGraph, ContentGraph
from rexbert_hf.pretraining.association_settings import FORMS, AssociationSettings
from rexbert_hf.pretraining.sources import PRODUCT_ID

logger = logging.getLogger(__name__)

_FILE = "products.parquet"
_ROWS = 10_000


def save_product_rows(
    documents: Dataset, trained: Dataset, store: TokenisedDataset, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> dict[str, int]:
    """Write which document of the store is the content of which product; runs may share the folder.

    Args:
        documents: all that was read, with `text` and `product_id`.
        trained: the documents to train on, before tokenising.
        store: their tokens.
        tokenizer: that made them.
        folder: of the prepared source.

    Returns:
        What tells the file's content, for the report of the source (see `check_product_rows`).

    Raises:
        OSError: if it cannot be written.
    """
    keys = _keys(trained)
    order = np.argsort(keys)
    row_of = np.arange(len(trained))
    if len(store) < len(trained):  # the tokenizer skipped some
        kept = np.concatenate([_kept(texts, tokenizer) for texts in _texts(trained)])
        row_of = np.where(kept, np.cumsum(kept) - 1, -1)
        assert int(kept.sum()) == len(store)
    wanted = _keys(documents)
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    rows = np.where(keys[order[at]] == wanted, row_of[order[at]], -1)
    ids = pa.array([as_text(value) or None for value in documents[PRODUCT_ID]], pa.string())
    table = pa.table({PRODUCT_ID: ids, "row": pa.array(rows)}).filter(pa.array(rows >= 0)).drop_null()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(folder / _FILE, sink.getvalue().to_pybytes())
    return _facts(folder)


def check_product_rows(folder: Path, facts: Mapping[str, int] | None) -> None:
    """Whether the products of a prepared source are as they were written.

    Args:
        folder: of the source.
        facts: what `save_product_rows` returned; None for a source without products, or one of an earlier version.

    Raises:
        ValueError: if they are not.
        OSError: if they are not there.
    """
    if facts is not None and _facts(folder) != facts:
        raise ValueError(f"{folder / _FILE} is damaged: its contents changed")


def _facts(folder: Path) -> dict[str, int]:
    return {"bytes": (folder / _FILE).stat().st_size, "crc32": checksum(folder / _FILE)}


def _texts(documents: Dataset) -> Iterator[list[str]]:
    for batch in documents.select_columns(["text"]).with_format("arrow").iter(batch_size=_ROWS):
        yield batch["text"].to_pylist()


def _keys(documents: Dataset) -> np.ndarray:
    """Sixteen bytes a document that tell texts apart, as they do when repeated documents are dropped."""
    digests = np.concatenate([text_digests(texts) for texts in _texts(documents)])
    return np.ascontiguousarray(digests).view([("a", np.uint64), ("b", np.uint64)])[:, 0]


def _kept(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    encoder = TextEncoder.from_tokenizer(tokenizer)
    return np.array([len(encoder.encode([text])[0]) == 1 for text in texts])


@dataclass(frozen=True)
class Associations:
    """What a run trains neighbour reconstruction on.

    Attributes:
        contents: associations between documents of the sources.
        report: what was read and what of it is used; `fingerprint` names the result.
    """

    contents: ContentGraph
    report: dict[str, Any]


def load_associations(
    settings: AssociationSettings, stores: Mapping[str, TokenisedDataset], data_dir: str | None = None
) -> Associations:
    """Read the associations and find the documents of their products.

    Args:
        settings: where they come from.
        stores: the prepared sources; those read with a `product_id` count.
        data_dir: relative paths start here.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if no source has product ids, or no association of two of their products is left.
    """
    places = {name: found for name, store in stores.items() if (found := _places(store)) is not None}
    if not places:
        raise ValueError(
            "associations: no source names its products: add product_id to the columns of one, as "
            "--sources.NAME.columns '{text: title, product_id: id}'"
        )
    known = dict.fromkeys(product for found in places.values() for product in found)
    try:
        graph = _graph(settings, list(known), data_dir)
        contents = ContentGraph.build(graph, places)
    except ValueError as error:
        raise ValueError(f"associations: {error}") from error
    used = contents.graph
    report = {
        "products": len(known),
        **vars(graph.report),
        "associated_documents": int((used.degrees > 0).sum()),
        "associations": used.num_pairs,
        "products_with_equal_text": contents.merged,
        "fingerprint": _fingerprint(contents),
    }
    logger.info(
        "associations: %d between %d of %d documents with products",
        used.num_pairs,
        report["associated_documents"],
        len(used),
    )
    return Associations(contents, report)


def has_products(store: TokenisedDataset) -> bool:
    """Whether the source of a store was read with a `product_id`: any of its documents may be drawn as a neighbour.

    Args:
        store: the tokens that a prepared source trains on.
    """
    return store.path is not None and (store.path.parent / _FILE).exists()


def _places(store: TokenisedDataset) -> dict[str, int] | None:
    if store.path is None or not has_products(store):
        return None
    path = store.path.parent / _FILE
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:  # of a cache of an earlier version, whose report says nothing of it
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{path} is damaged ({reason}): remove the folder {path.parent}, and its source is prepared again"
        ) from error
    return dict(zip(table[PRODUCT_ID].to_pylist(), table["row"].to_pylist(), strict=True))


def _fingerprint(contents: ContentGraph) -> str:
    digest = hashlib.blake2b(json.dumps(contents.names).encode(), digest_size=8)
    for array in (contents.graph.pairs(), contents.source, contents.row):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _graph(settings: AssociationSettings, products: list[str], data_dir: str | None) -> AssociationGraph:
    rows = _rows(settings, data_dir)
    names = set(rows.column_names)
    form = next((form for form in FORMS if set(form) <= names), None)
    if form is None:
        raise ValueError(f"no product_a and product_b, and no basket, among the columns {', '.join(sorted(names))}")
    if form == FORMS[0]:
        return AssociationGraph.from_pairs(_pairs(rows, settings), products)
    baskets = _lines(rows) if form == FORMS[1] else (_ids(row["basket"], settings.separator, True) for row in rows)
    return AssociationGraph.from_baskets(baskets, products, settings.min_count, settings.max_basket)


def _rows(settings: AssociationSettings, data_dir: str | None) -> Dataset:
    if settings.sample:
        return load_sample("associations", size=settings.sample_size)
    paths = [settings.path] if isinstance(settings.path, str) else settings.path or []
    here = [os.path.join(data_dir, path) if data_dir else path for path in paths]
    found = [
        inside if os.path.exists(inside) or glob.glob(inside, recursive=True) or "*" in inside else path
        for inside, path in zip(here, paths, strict=True)
    ]
    source: Any = found[0] if len(found) == 1 else found
    return read_records(source, settings.columns, format=settings.format, encoding=settings.encoding)


def _pairs(rows: Dataset, settings: AssociationSettings) -> Iterator[tuple[str, list[str]]]:
    if settings.kinds and "kind" not in rows.column_names:
        raise ValueError("kinds needs a column 'kind': add it to columns")
    for row in rows:
        if settings.kinds and row["kind"] not in settings.kinds:
            continue
        if row["product_a"] not in (None, ""):
            yield as_text(row["product_a"]), _ids(row["product_b"], settings.separator, False)


def _lines(rows: Dataset) -> Iterable[list[str]]:
    baskets: dict[Any, list[str]] = {}
    for row in rows:
        if row["basket"] not in (None, "") and row[PRODUCT_ID] not in (None, ""):
            baskets.setdefault(row["basket"], []).append(as_text(row[PRODUCT_ID]))
    return baskets.values()


def _ids(value: Any, separator: str | None, always_split: bool) -> list[str]:
    """Product ids of one field: a list, a JSON list, ids with a separator, or a single one."""
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            try:
                value = json.loads(text)
            except ValueError:
                raise ValueError(f"{text[:60]!r} is no JSON list of product ids") from None
        elif separator is not None or always_split:
            value = text.split(separator)
        else:
            value = [text]
    elif not isinstance(value, list | tuple | np.ndarray):
        value = [value]
    return [name for item in value if (name := as_text(item).strip())]
