"""The rows of an index: product ids, texts, filter columns, and which rows still count.

Rows are only ever added. A product whose text has changed gets a new row and its old one is dead; one whose price or
stock has changed keeps its row. Saved as two Parquet files, because texts are rarely needed.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from rexbert_hf.catalog import PRODUCT_FIELDS, product_text
from rexbert_hf.catalog.columns import as_text
from rexbert_hf.retrieval.serving.filter_columns import Coded, FilterColumns
from rexbert_hf.retrieval.serving.filters import filter_values
from rexbert_hf.retrieval.serving.id_lookup import IdLookup
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.parquet_file import AS_WRITTEN, opened, whole
from rexbert_hf.retrieval.serving.text_column import TextColumn, saved_texts
from rexbert_hf.retrieval.serving.texts import valid_text

logger = logging.getLogger(__name__)

PRODUCTS_FILE = "products.parquet"
BATCH_PRODUCTS = 4_096
"""Products that are encoded at a time."""

_OWN = {"product_id": "product_id", "alive": "__alive", "digest": "__digest"}


@dataclass
class Batch:
    """Products of one batch that have text: ids, texts, records.

    Attributes:
        ids: product ids, each once; of a repeated one the last counts.
        texts: what is encoded.
        values: of the filter columns, by name.
        skipped: ids of products without any text; an index does not hold them, or no longer.
        repeated: products whose id came again.
        removed: of the skipped those that an upsert took out of the index; set by what takes the batch.
        others: products that have none of the index's fields; what else they have is encoded.
        named: what the first of these has.
    """

    ids: list[str]
    texts: list[str]
    values: list[dict[str, Any]]
    skipped: list[str] = field(default_factory=list)
    repeated: int = 0
    others: int = 0
    named: list[str] = field(default_factory=list)
    removed: int = 0


def batches(products: Any, options: IndexOptions, fresh: bool = False) -> Iterator[Batch]:
    """Cut products into batches; says at the end how many were left out, replaced, or lack what is looked for.

    Where the whole first batch of a fresh index lacks it, that is said before anything is encoded.

    Args:
        products: a data set, a data frame of pandas, a list or a generator of `PRODUCT` rows or mappings with some of
            their fields.
        options: of the index.
        fresh: whether the index is to be encoded from these products alone.

    Raises:
        ValueError: for a product without id; its place is named. At the end, if no product of a fresh index has one of
            its fields: another index than the one described would come of it.
        TypeError: for what is no mapping, and for a path or one product alone.
    """
    rows = _rows(products)
    first = skipped = removed = repeated = unread = unknown = texts = others = 0
    named: list[str] = []
    lack = f"none of the index's fields ({', '.join(options.fields)})"
    way_out = "the first has {}: name some of these in fields (index.fields), or map one to title"
    while part := list(islice(rows, BATCH_PRODUCTS)):
        batch = _batch(part, first, options)
        unread += sum(math.isnan(values.get("price", 0)) for values in batch.values)
        unknown += sum(math.isnan(values.get("in_stock", 0)) for values in batch.values)
        if fresh and first == 0 and len(part) == BATCH_PRODUCTS and 0 < batch.others == len(batch.ids):
            said = way_out.format(", ".join(batch.named))
            logger.warning("all %d products so far have %s; %s", batch.others, lack, said)
        yield batch
        first += len(part)
        skipped, removed = skipped + len(batch.skipped), removed + batch.removed
        repeated += batch.repeated  # who takes the batch may have added those of earlier ones
        texts, others, named = texts + len(batch.ids), others + batch.others, named or batch.named
    if fresh and others and others == texts:
        raise ValueError(f"all {others} products have {lack}; {way_out.format(', '.join(named))}")
    for count, what in (
        (skipped - removed, "without any text left out"),
        (removed, "have no text any more and were removed from the index: an upsert takes whole records"),
        (repeated, "replaced by a later one of their id"),
        (others, f"of {texts} have {lack}: all else that they have is encoded"),
        (unread, "have a price that is no number: they are kept without one"),
        (unknown, "have a stock that says neither yes nor no: they are kept without one"),
    ):
        if count:
            logger.warning("%d products %s", count, what)


def _rows(products: Any) -> Iterator[Any]:
    if isinstance(products, Dataset):
        return _dataset_rows(products)
    if isinstance(products, (str, os.PathLike)):
        place = os.fspath(products)
        raise TypeError(f"products are records, not the path {place!r}: read it first, catalog.read_records({place!r})")
    if isinstance(products, Mapping):
        raise TypeError(f"products are several records, not one {type(products).__name__}: give a list, or one split")
    if hasattr(products, "columns") and hasattr(products, "iloc"):  # pandas, which is none of what we need
        return _frame_rows(products)
    return iter(products)


def _frame_rows(frame: Any) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(frame), BATCH_PRODUCTS):
        yield from frame.iloc[start : start + BATCH_PRODUCTS].to_dict("records")


def _dataset_rows(products: Dataset) -> Iterator[Mapping[str, Any]]:
    for part in products.iter(batch_size=1000):
        columns = list(part)
        for values in zip(*part.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _batch(part: Sequence[Mapping[str, Any]], first: int, options: IndexOptions) -> Batch:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    others: dict[str, int] = {}
    skipped: dict[str, None] = {}
    repeated = 0
    for place, product in enumerate(part, start=first):
        if not isinstance(product, Mapping):
            raise TypeError(f"product {place} is {type(product).__name__}: a mapping with product_id and title is due")
        name = as_text(product.get("product_id"))
        if not name.strip():
            raise ValueError(f"product {place} has no product_id ({str(dict(product))[:80]}): give each product one")
        if valid_text(name) != name:
            raise ValueError(f"product {place}: its product_id {name[:40]!r} is not valid text: mend it")
        repeated += name in found or name in skipped
        for earlier in (found, skipped, others):
            earlier.pop(name, None)
        text, chosen = _text_of(product, options)
        if text:
            found[name] = text, filter_values(product, options.filters)
            if not chosen:
                others[name] = place - first
        else:
            skipped[name] = None
    texts, values = [text for text, _ in found.values()], [values for _, values in found.values()]
    named = _filled(part[next(iter(others.values()))]) if others else []
    return Batch(list(found), texts, values, list(skipped), repeated, len(others), named)


def _filled(product: Mapping[str, Any]) -> list[str]:
    """Names of what a product has, for a message: texts, and what was encoded; others may hold what is no text."""
    texts = {name for name, value in product.items() if isinstance(value, str) and value.strip()} - {"product_id"}
    encoded = {name for name in PRODUCT_FIELDS if product_text(product, (name,))}
    return [str(name) for name in product if name in texts | encoded][:20]


def text_of(product: Mapping[str, Any], options: IndexOptions) -> str:
    """What is encoded of a product; one without the chosen fields gives all it has.

    Args:
        product: the record.
        options: of the index.

    Example:
        >>> text_of({"title": "Mug", "brand": "Ostwick"}, IndexOptions()), text_of({"brand": "Ostwick"}, IndexOptions())
        ('Mug', 'Ostwick')
    """
    return _text_of(product, options)[0]


def _text_of(product: Mapping[str, Any], options: IndexOptions) -> tuple[str, bool]:
    """A product's text, and whether it is of the chosen fields."""
    text = product_text(product, options.fields, options.field_names).strip()
    whole = text or product_text(product, PRODUCT_FIELDS, options.field_names).strip()
    return valid_text(whole), bool(text)


def digests_of(texts: Iterable[str]) -> np.ndarray:
    """64 bits of each text's hash, uint64 `[N]`."""
    data = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(data), dtype="<u8").astype(np.uint64)


class ProductRows:
    """Rows of an index.

    Args:
        filters: columns to keep for filters.
        texts: a scratch file for the texts until `TextColumn.settle`; without it they are kept in memory.

    Attributes:
        ids: product id of each row.
        texts: text of each row.
        alive: bool `[N]`, rows that count.
        columns: filter columns.
    """

    def __init__(self, filters: Sequence[str] = (), texts: Path | None = None) -> None:
        self.ids: pa.Array = pa.array([], pa.string())
        self.alive = np.zeros(0, dtype=bool)
        self._digests: np.ndarray | None = np.zeros(0, dtype=np.uint64)
        self.columns = FilterColumns(filters)
        self._lookup = IdLookup()
        self.texts = TextColumn(texts)
        self._reading = threading.Lock()
        # An open file: what is read later is there even when the version has been replaced meanwhile.
        self._folder = Path()
        self._products_file: pq.ParquetFile | None = None

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def count(self) -> int:
        """Products, that is rows that count."""
        return int(np.count_nonzero(self.alive))

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """The living row of each product id, -1 where there is none.

        Args:
            ids: product ids.
        """
        rows = self._lookup.latest(self.ids, ids)
        there = np.flatnonzero(rows >= 0)
        # A product gets a new row when its last one is dead, so no earlier one is alive.
        rows[there[~self.alive[rows[there]]]] = -1
        return rows

    def holds(self, rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Whether each row is there and has this text, bool `[N]`.

        Args:
            rows: -1 is none.
            texts: one for each.
        """
        there = rows >= 0
        same = np.zeros(len(rows), dtype=bool)
        same[there] = self.digests[rows[there]] == digests_of(texts)[there]
        return same

    def kill(self, rows: np.ndarray) -> int:
        """Mark rows as dead; returns how many.

        Args:
            rows: -1 is none.
        """
        rows = rows[rows >= 0]
        if len(rows):
            self.alive = self.alive.copy()  # searches that run keep theirs
            self.alive[rows] = False
        return len(rows)

    def append(self, ids: Sequence[str], texts: Sequence[str], coded: Coded, places: np.ndarray) -> None:
        """Add rows for products of a batch.

        Args:
            ids: of all its products.
            texts: likewise.
            coded: their filter columns, see `FilterColumns.coded`.
            places: of the products that get a row.
        """
        new, own = [ids[i] for i in places], [texts[i] for i in places]
        # What may find no memory comes before the first change, what copies all rows first.
        ids = pa.concat_arrays([self.ids, pa.array(new, pa.string())])
        alive = np.concatenate([self.alive, np.ones(len(new), dtype=bool)])
        digests = np.concatenate([self.digests, digests_of(own)])
        self.columns.append(coded, places)
        self.texts.append(own)
        self.ids, self.alive, self._digests = ids, alive, digests

    @property
    def digests(self) -> np.ndarray:
        """64 bits of the hash of each row's text, uint64 `[N]`; read from disk when first asked for.

        Raises:
            ValueError: if the file is damaged.
        """
        with self._reading:
            if self._digests is None:
                assert self._products_file is not None
                with whole(self._folder / PRODUCTS_FILE):
                    self._digests = self._products_file.read(columns=[_OWN["digest"]]).column(0).to_numpy()
            return self._digests

    def names(self, rows: np.ndarray) -> list[str]:
        """Product ids of rows."""
        names: list[str] = self.ids.take(pa.array(rows)).to_pylist()
        return names

    def kept(self, rows: np.ndarray, texts: Path | None = None) -> ProductRows:
        """A copy with some rows only.

        Args:
            rows: bool `[N]`, those that it has.
            texts: a scratch file for their texts.
        """
        copy = ProductRows(texts=texts)
        first = 0
        for chunk in self.texts.chunks():
            copy.texts.append(chunk.filter(pa.array(rows[first : first + len(chunk)])))
            first += len(chunk)
        copy.texts.settle()
        copy.ids = self.ids.filter(pa.array(rows))
        copy.alive, copy._digests = self.alive[rows], self.digests[rows]
        copy.columns = self.columns.kept(np.flatnonzero(rows))
        return copy

    def save(self, folder: Path) -> None:
        """Write the two Parquet files.

        Args:
            folder: of the index.
        """
        table = {"product_id": self.ids, _OWN["alive"]: pa.array(self.alive), _OWN["digest"]: pa.array(self.digests)}
        pq.write_table(pa.table({**table, **self.columns.to_arrow()}), folder / PRODUCTS_FILE, **AS_WRITTEN)
        self.texts.save(folder)

    @classmethod
    def load(cls, folder: Path, filters: Sequence[str]) -> ProductRows:
        """Read what `save` wrote; texts when they are needed.

        Args:
            folder: of the index.
            filters: columns that the index keeps.

        Raises:
            ValueError: if a file is damaged.
        """
        rows = cls(filters)
        rows._folder = folder
        with whole(folder / PRODUCTS_FILE) as path:
            rows._digests, rows._products_file = None, opened(path)
            names = [name for name in rows._products_file.schema_arrow.names if name != _OWN["digest"]]
            # Else a column whose name has changed would be one that no product has.
            if unknown := set(names) - {*_OWN.values(), *rows.columns.names}:
                raise pa.ArrowInvalid(f"a column {min(unknown)!r}")
            table = rows._products_file.read(columns=names)
            rows.ids = table.column("product_id").combine_chunks()
            rows.alive = table.column(_OWN["alive"]).to_numpy().copy()
            rows.columns = FilterColumns.from_arrow(filters, table)
        rows.texts.use(saved_texts(folder, len(rows)), folder)
        del table
        pa.default_memory_pool().release_unused()
        return rows
