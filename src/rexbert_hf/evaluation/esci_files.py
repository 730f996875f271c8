"""Amazon ESCI as its organisers publish it: a folder with two Parquet files, examples and products."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

EXAMPLES, PRODUCTS = "shopping_queries_dataset_examples.parquet", "shopping_queries_dataset_products.parquet"
LOCALE = "us"
_JOINED = ("product_id", "product_locale")


def is_esci(name: str) -> bool:
    """Whether a data set's name is a folder with the two files.

    Args:
        name: of a data set, or a folder.
    """
    return all((Path(name) / file).is_file() for file in (EXAMPLES, PRODUCTS))


def esci_table(folder: str) -> pa.Table:
    """The English examples of the small version, with the texts of their products.

    Args:
        folder: with the two files.

    Returns:
        Columns query, product_id, esci_label, split, row (of the file of examples, from 0), product_title and, where
        the file has it, product_description.

    Raises:
        ValueError: if a file lacks a column or cannot be read, a product comes twice, or no example is left.
    """
    examples = _read(Path(folder) / EXAMPLES, ["query", "product_id", "product_locale", "esci_label", "split"], True)
    path = Path(folder) / PRODUCTS
    there = _columns(path)
    texts = ["product_title", *(name for name in ("product_description",) if name in there)]
    products = _read(path, [*_JOINED, *texts], False)
    twice = products.group_by("product_id").aggregate([("row", "count"), ("row", "max")])
    twice = twice.filter(pc.greater(twice["row_count"], 1))
    if len(twice):
        product, row = twice["product_id"][0], twice["row_max"][0]
        raise ValueError(f"{path}, row {row}: the product {product} ({LOCALE}) comes a second time: keep one")
    joined = examples.join(products.drop_columns(["row"]), list(_JOINED), join_type="inner").sort_by("row")
    if not len(joined):
        raise ValueError(f"{folder}: no example of the small version and the locale {LOCALE} has a product")
    if lost := len(examples) - len(joined):
        logger.warning(
            "%s: %d of %d examples are left out: %s lacks their products", folder, lost, len(examples), PRODUCTS
        )
    return joined.drop_columns(["product_locale"])


def esci_rows(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of `esci_table` is, and the row.

    Args:
        folder: with the two files.
    """
    for row in esci_table(folder).to_pylist():
        yield f"{Path(folder) / EXAMPLES}, row {row.pop('row')}", row


def _read(path: Path, columns: list[str], small: bool) -> pa.Table:
    """These columns of the locale's rows, and their numbers in the file."""
    filtered = ["product_locale", *(["small_version"] if small else [])]
    if lost := sorted({*columns, *filtered} - set(_columns(path))):
        raise ValueError(f"{path}: no column {', '.join(lost)}")
    try:
        table = pq.read_table(path, columns=list(dict.fromkeys([*columns, *filtered])))
    except pa.ArrowInvalid as error:
        raise _unreadable(path, error) from None
    table = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    kept = pc.equal(table["product_locale"], LOCALE)
    if small:
        kept = pc.and_(kept, pc.equal(table["small_version"], 1))
    return table.filter(kept).select([*columns, "row"])


def _columns(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except pa.ArrowInvalid as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})")
