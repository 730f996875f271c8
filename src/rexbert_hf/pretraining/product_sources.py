"""Product records on their way to the tokenizer: products as texts with named fields, and query-product pairs.

Rows stream through Arrow batches into a mapped file, so only the products of pairs (their fields) stay in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from rexbert_hf.catalog import PRODUCT, SPLITS, load_sample, product_text, read_label, read_records
from rexbert_hf.catalog.escapes import listed
from rexbert_hf.catalog.report import ReadReport
from rexbert_hf.pretraining.product_settings import PairSettings, ProductTextSettings

logger = logging.getLogger(__name__)

PAIR_FEATURES = Features(
    {
        "query": Value("string"),
        "product_id": Value("string"),
        "split": Value("string"),  # where the pairs say it
        "text": Value("string"),  # query and product, by which repeated pairs are known
        "pair": {"query": List(Value("string")), "product": List(Value("string")), "relevance": Value("float32")},
    }
)
_RELEVANT_LABELS = ("E", "S", "1")
_BELOW, _NEITHER = "below min_relevance", "the label -2"
"""Why a pair is rightly left out."""
_ROWS = 1_000


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Rows one after the other, read in batches.

    Args:
        dataset: any map-style data set.
    """
    for batch in dataset.with_format("arrow").iter(batch_size=_ROWS):
        yield from batch.to_pylist()


def mapped(rows: Iterator[dict[str, Any]], features: Features, work_dir: Path | None, name: str) -> Dataset:
    """Rows as a data set; with a folder they lie there and are mapped.

    Args:
        rows: of the data set.
        features: their types.
        work_dir: where the file goes; None keeps it in memory.
        name: of the file.
    """
    schema = features.arrow_schema
    batches = (pa.RecordBatch.from_pylist(held, schema=schema) for held in _batches(rows))
    if work_dir is None:
        return Dataset(pa.Table.from_batches(batches, schema=schema))
    path = work_dir / f"{name}.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Dataset.from_file(str(path))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == _ROWS:
            yield held
            held = []
    if held:
        yield held


def join_fields(product: Mapping[str, Any], settings: ProductTextSettings) -> str:
    """One product as a text; the order of its fields follows from the seed and the product alone.

    Args:
        product: a `PRODUCT` row.
        settings: how fields are joined.

    Example:
        >>> product = {"title": "Mug", "brand": "Ostwick"}
        >>> join_fields(product, ProductTextSettings())
        'title: Mug . brand: Ostwick'
        >>> join_fields(product, ProductTextSettings(permute=True))
        'brand: Ostwick . title: Mug'
    """
    text = product_text(product, settings.fields, settings.field_names)
    if not settings.permute:
        return text
    digest = hashlib.sha1(f"{settings.seed} {text}".encode("utf-8", "surrogatepass"), usedforsecurity=False)
    order = random.Random(digest.digest()).sample(settings.fields, len(settings.fields))
    return product_text(product, order, settings.field_names)


def product_texts(products: Dataset, settings: ProductTextSettings, work_dir: Path | None) -> Dataset:
    """Products as texts, with `product_id` and `language` where they have them; those without any text are left out.

    Args:
        products: `PRODUCT` rows.
        settings: how fields are joined.
        work_dir: texts are written there and mapped.
    """
    names = [name for name in ("product_id", "language") if name in products.column_names]
    features = Features({"text": Value("string"), **{name: Value("string") for name in names}})
    texts = ({"text": join_fields(row, settings), **{name: row[name] for name in names}} for row in rows_of(products))
    return mapped((row for row in texts if row["text"]), features, work_dir, "products")


def read_pair_products(
    settings: PairSettings, paths: Any, sample_size: int | None, work_dir: Path | None
) -> dict[str, list[str]]:
    """Fields of each product, by id, as texts.

    Args:
        settings: of the pairs.
        paths: where the products are; None for the sample shop.
        sample_size: products of the sample shop.
        work_dir: rows are written there while they are read.
    """
    if paths is None:
        products = load_sample("products", size=sample_size)
    else:
        features = PRODUCT if settings.product_columns is not None else None
        products = read_records(paths, settings.product_columns, features=features, cache_dir=work_dir)
    if "product_id" not in products.column_names:
        raise ValueError(f"{paths}: no column 'product_id' for products: map it with pairs.product_columns")
    return {row["product_id"]: product_fields(row, settings) for row in rows_of(products)}


def product_fields(product: Mapping[str, Any], settings: PairSettings) -> list[str]:
    """Texts of the fields that are not empty.

    Args:
        product: a `PRODUCT` row.
        settings: which fields, and whether they are named.

    Example:
        >>> product_fields({"title": "Mug", "brand": None}, PairSettings())
        ['title: Mug']
    """
    texts = (product_text(product, (name,), settings.field_names) for name in settings.product_fields)
    return [text for text in texts if text]


def pair_rows(
    pairs: Dataset, settings: PairSettings, products: Mapping[str, list[str]] | None, report: ReadReport | None = None
) -> Iterator[dict[str, Any]]:
    """Pairs with the texts of both sides; those without query, product or text are left out, counted and logged.

    Args:
        pairs: rows with `query`, `product_id` and, if they have it, `relevance` or `label`, and `split`.
        settings: of the pairs.
        products: fields by product id; None where the rows have them.
        report: left-out rows are added to its `empty`.

    Raises:
        ValueError: if a column is missing, or a label or split is unknown.
    """
    needed = [*settings.query_fields, *(("product_id",) if products is not None else ())]
    missing = [name for name in needed if name not in pairs.column_names]
    if missing:
        raise ValueError(f"pairs: no column '{missing[0]}' among {listed(pairs.column_names)}: map it in 'columns'")
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows_of(pairs)):
        relevance = relevance_of(row, number)
        if relevance is None:
            left_out[_NEITHER] += 1
            continue
        if settings.min_relevance is not None and relevance < settings.min_relevance:
            left_out[_BELOW] += 1
            continue
        query = [(name, str(row[name]).strip()) for name in settings.query_fields if row[name] is not None]
        texts = [text if len(settings.query_fields) == 1 else f"{name}: {text}" for name, text in query if text]
        fields = product_fields(row, settings) if products is None else products.get(row["product_id"])
        if not texts or query[0][0] != "query" or not query[0][1] or not fields:
            reason = "an unknown product" if fields is None else "an empty product" if not fields else "an empty query"
            left_out[reason] += 1
            continue
        pair = {"query": texts, "product": fields, "relevance": relevance}
        text = json.dumps([texts, fields], ensure_ascii=False)
        own = row.get("split")
        if own is not None and own not in SPLITS:
            raise ValueError(f"pair {number} has the split '{own}': use {', '.join(SPLITS)}, or set 'columns' without")
        yield {"query": query[0][1], "product_id": row.get("product_id"), "split": own, "text": text, "pair": pair}
    wrong = {reason: count for reason, count in left_out.items() if reason not in (_BELOW, _NEITHER)}
    if wrong:
        logger.warning("pairs left out: %s", ", ".join(f"{count} with {reason}" for reason, count in wrong.items()))
    if report is not None:
        report.empty += sum(wrong.values())


def relevance_of(row: Mapping[str, Any], number: int = 0) -> float | None:
    """Relevance of a pair in [0, 1]: its number, or its label's; 1 where it has none, None for the label -2.

    Args:
        row: a pair.
        number: of the row, for the message.

    Raises:
        ValueError: if the label is unknown, or the number lies outside [0, 1].

    Example:
        >>> relevance_of({"label": "S"}), relevance_of({"relevance": 0.25}), relevance_of({})
        (1.0, 0.25, 1.0)
    """
    if row.get("relevance") not in (None, ""):
        value = float(row["relevance"])
        if not 0 <= value <= 1:
            raise ValueError(
                f"pair {number}: relevance {value:g} is not in [0, 1]: recipes/build_pairs.py brings graded pairs there"
            )
        return value
    try:
        label = read_label(row.get("label"))
    except ValueError as error:
        raise ValueError(f"pair {number}: {error}") from None
    return None if label == "-2" else float(label is None or label in _RELEVANT_LABELS)
