"""Amazon ESCI as its organisers publish it: a folder with two Parquet files, examples and products."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
        Columns query, product_id, esci_label, split, product_title and, where the file has it, product_description.

    Raises:
        ValueError: if a file lacks a column or cannot be read, or no example is left.
    """
    wanted = ["query", "product_id", "product_locale", "esci_label", "split"]
    filters = [("product_locale", "=", LOCALE), ("small_version", "=", 1)]
    examples = _read(Path(folder) / EXAMPLES, wanted, filters)
    path = Path(folder) / PRODUCTS
    there = pq.read_schema(path).names
    texts = ["product_title", *(name for name in ("product_description",) if name in there)]
    products = _read(path, [*_JOINED, *texts], filters[:1])
    numbered = examples.append_column("row", pa.array(range(len(examples))))
    joined = numbered.join(products, list(_JOINED), join_type="inner").sort_by("row")
    if not len(joined):
        raise ValueError(f"{folder}: no example of the small version and the locale {LOCALE} has a product")
    return joined.drop_columns(["row", "product_locale"])


def esci_rows(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of `esci_table` is, and the row.

    Args:
        folder: with the two files.
    """
    for number, row in enumerate(esci_table(folder).to_pylist()):
        yield f"{Path(folder) / EXAMPLES} example {number}", row


def _read(path: Path, columns: list[str], filters: list[tuple[str, str, Any]]) -> pa.Table:
    try:
        lost = sorted({*columns, *(name for name, *_ in filters)} - set(pq.read_schema(path).names))
        if lost:
            raise ValueError(f"{path}: no column {', '.join(lost)}")
        return pq.read_table(path, columns=columns, filters=filters)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
