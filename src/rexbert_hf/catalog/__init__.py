"""Records, readers of public formats, the one held-out split, and the built-in sample shop.

What comes out of here is a `datasets.Dataset`, whatever went in.
"""

from __future__ import annotations

from .columns import ColumnSpec
from .readers import read_records
from .records import (
    ASSOCIATION,
    LABELS,
    PRODUCT,
    PRODUCT_FIELDS,
    QUERY,
    QUERY_PRODUCT,
    QUESTION,
    RECORDS,
    REVIEW,
    SEARCH_EVENT,
    SENTIMENTS,
    WEB_PAGE,
    product_text,
    read_label,
    record_types,
)
from .report import ReadReport
from .sample import SAMPLE_KINDS, SAMPLE_SIZE, load_sample
from .split import HELD_OUT, SPLITS, deduplicate, normalize_text, split_dataset, split_of, split_queries, text_digests

__all__ = [
    "ASSOCIATION",
    "ColumnSpec",
    "HELD_OUT",
    "LABELS",
    "PRODUCT",
    "PRODUCT_FIELDS",
    "QUERY",
    "QUERY_PRODUCT",
    "QUESTION",
    "RECORDS",
    "REVIEW",
    "ReadReport",
    "SAMPLE_KINDS",
    "SAMPLE_SIZE",
    "SEARCH_EVENT",
    "SENTIMENTS",
    "SPLITS",
    "WEB_PAGE",
    "deduplicate",
    "load_sample",
    "normalize_text",
    "product_text",
    "read_label",
    "read_records",
    "record_types",
    "split_dataset",
    "split_of",
    "split_queries",
    "text_digests",
]
