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
from contextlib import contextmanager
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
from rexbert_hf.retrieval.serving.index_folder import DamagedIndexError
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.texts import valid_text

logger = logging.getLogger(__name__)

PRODUCTS_FILE, TEXTS_FILE = "products.parquet", "texts.parquet"
BATCH_PRODUCTS = 4_096
"""Products that are encoded at a time."""

_TEXT = pa.large_string()  # offsets of 64 bits: all texts together may exceed 2 GiB
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
    """

    ids: list[str]
    texts: list[str]
    values: list[dict[str, Any]]
    skipped: list[str] = field(default_factory=list)
    repeated: int = 0


def batches(products: Any, options: IndexOptions) -> Iterator[Batch]:
    """Cut products into batches; says at the end how many were left out, replaced, or had a price or stock unread.

    Args:
        products: a data set, a data frame of pandas, a list or a generator of `PRODUCT` rows or mappings with some of
            their fields.
        options: of the index.

    Raises:
        ValueError: for a product without id; its place is named.
        TypeError: for what is no mapping, and for a path or one product alone.
    """
    rows = _rows(products)
    first = skipped = repeated = unread = unknown = 0
    while part := list(islice(rows, BATCH_PRODUCTS)):
        batch = _batch(part, first, options)
        unread += sum(math.isnan(values.get("price", 0)) for values in batch.values)
        unknown += sum(math.isnan(values.get("in_stock", 0)) for values in batch.values)
        yield batch
        first += len(part)
        skipped += len(batch.skipped)
        repeated += batch.repeated  # who takes the batch may have added those of earlier ones
    for count, what in (
        (skipped, "without any text left out"),
        (repeated, "replaced by a later one of their id"),
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
        found.pop(name, None)
        skipped.pop(name, None)
        if text := text_of(product, options):
            found[name] = text, filter_values(product, options.filters)
        else:
            skipped[name] = None
    texts, values = [text for text, _ in found.values()], [values for _, values in found.values()]
    return Batch(list(found), texts, values, list(skipped), repeated)


def text_of(product: Mapping[str, Any], options: IndexOptions) -> str:
    """What is encoded of a product; one without the chosen fields gives all it has.

    Args:
        product: the record.
        options: of the index.

    Example:
        >>> text_of({"title": "Mug", "brand": "Ostwick"}, IndexOptions()), text_of({"brand": "Ostwick"}, IndexOptions())
        ('Mug', 'Ostwick')
    """
    text = product_text(product, options.fields, options.field_names).strip()
    return valid_text(text or product_text(product, PRODUCT_FIELDS, options.field_names).strip())


def digests_of(texts: Iterable[str]) -> np.ndarray:
    """64 bits of each text's hash, uint64 `[N]`."""
    data = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(data), dtype="<u8").astype(np.uint64)


class ProductRows:
    """Rows of an index.

    Args:
        filters: columns to keep for filters.

    Attributes:
        ids: product id of each row.
        alive: bool `[N]`, rows that count.
        columns: filter columns.
    """

    def __init__(self, filters: Sequence[str] = ()) -> None:
        self.ids: pa.Array = pa.array([], pa.string())
        self.alive = np.zeros(0, dtype=bool)
        self._digests: np.ndarray | None = np.zeros(0, dtype=np.uint64)
        self.columns = FilterColumns(filters)
        self._lookup = IdLookup()
        self._texts: list[pa.Array] = []
        self._reading = threading.Lock()
        # Open files: what is read later is there even when the version has been replaced meanwhile.
        self._folder = Path()
        self._texts_file: pq.ParquetFile | None = None
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
        self.columns.append(coded, places)
        self.ids = pa.concat_arrays([self.ids, pa.array(new, pa.string())])
        self.alive = np.concatenate([self.alive, np.ones(len(new), dtype=bool)])
        self._digests = np.concatenate([self.digests, digests_of(own)])
        self._texts.append(pa.array(own, _TEXT))

    @property
    def digests(self) -> np.ndarray:
        """64 bits of the hash of each row's text, uint64 `[N]`; read from disk when first asked for.

        Raises:
            ValueError: if the file is damaged.
        """
        with self._reading:
            if self._digests is None:
                assert self._products_file is not None
                with _whole(self._folder / PRODUCTS_FILE):
                    self._digests = self._products_file.read(columns=[_OWN["digest"]]).column(0).to_numpy()
            return self._digests

    @property
    def texts(self) -> pa.Array:
        """Text of each row; read from disk when first asked for, by one thread, while others wait.

        Raises:
            ValueError: if the file is damaged.
        """
        with self._reading:
            if self._texts_file is not None or len(self._texts) != 1:
                with _whole(self._folder / TEXTS_FILE):
                    stored = [] if self._texts_file is None else [_stored_texts(self._texts_file)]
                self._texts = [pa.concat_arrays([*stored, *self._texts, pa.array([], _TEXT)])]
                self._texts_file = None
            return self._texts[0]

    def names(self, rows: np.ndarray) -> list[str]:
        """Product ids of rows."""
        names: list[str] = self.ids.take(pa.array(rows)).to_pylist()
        return names

    def kept(self, rows: np.ndarray) -> ProductRows:
        """A copy with these rows only, in this order."""
        copy = ProductRows()
        copy._texts = [self.texts.take(pa.array(rows))]
        copy.ids = self.ids.take(pa.array(rows))
        copy.alive, copy._digests = self.alive[rows], self.digests[rows]
        copy.columns = self.columns.kept(rows)
        return copy

    def save(self, folder: Path) -> None:
        """Write the two Parquet files.

        Args:
            folder: of the index.
        """
        table = {"product_id": self.ids, _OWN["alive"]: pa.array(self.alive), _OWN["digest"]: pa.array(self.digests)}
        tables = {PRODUCTS_FILE: {**table, **self.columns.to_arrow()}, TEXTS_FILE: {"text": self.texts}}
        for name, columns in tables.items():
            # A checksum for each page: a bit that turned is a wrong text or price, and large indexes are not hashed.
            pq.write_table(pa.table(columns), folder / name, compression="zstd", write_page_checksum=True)

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
        with _whole(folder / PRODUCTS_FILE) as path:
            rows._digests, rows._products_file = None, _opened(path)
            names = [name for name in rows._products_file.schema_arrow.names if name != _OWN["digest"]]
            # Else a column whose name has changed would be one that no product has.
            if unknown := set(names) - {*_OWN.values(), *rows.columns.names}:
                raise pa.ArrowInvalid(f"a column {min(unknown)!r}")
            table = rows._products_file.read(columns=names)
            rows.ids = table.column("product_id").combine_chunks()
            rows.alive = table.column(_OWN["alive"]).to_numpy().copy()
            rows.columns = FilterColumns.from_arrow(filters, table)
        with _whole(folder / TEXTS_FILE) as path:
            rows._texts_file = _opened(path)
            if rows._texts_file.metadata.num_rows != len(rows):
                raise pa.ArrowInvalid(f"{rows._texts_file.metadata.num_rows} texts for {len(rows)} rows")
        del table
        pa.default_memory_pool().release_unused()
        return rows


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Name a file in what pyarrow raises of its contents: a plain OSError without a number, or one of its own."""
    try:
        yield path
    except OSError as error:
        if error.errno is not None:  # the system's, not the file's: it is missing, or may not be read
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from None
        raise _damaged(path, error) from None
    except (pa.ArrowException, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DamagedIndexError:
    return DamagedIndexError(f"{path} is damaged ({str(error).splitlines()[0]}): build the index again")


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)  # of files that have such; earlier versions wrote none


def _stored_texts(file: pq.ParquetFile) -> pa.Array:
    return file.read().column("text").cast(_TEXT).combine_chunks()
