"""Class numbers of `datasets` (`ClassLabel`) as the names that they stand for.

One decision worth knowing: a number without its names means nothing, or worse, something else: 0 and 1 are grades of a
click log. So names are what comes out, wherever the class stands: in a column, a list or an object. Only who asks for
numbers gets those of the classes, and judged pairs whose classes are labels by number alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Features, LargeList, List, Value

from .dataset_errors import reason_of

logger = logging.getLogger(__name__)

_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)

Readers = Mapping[str, Callable[[Any], Any]]
"""How values of the columns that hold classes become names."""


def named_classes(features: Features) -> tuple[Features, dict[str, Callable[[Any], Any]]]:
    """Types with text in place of classes, and how values of the columns that hold any become so.

    A number that stands for no class, as the -1 of a row without a label, becomes None.

    Args:
        features: of a data set.

    Example:
        >>> types, readers = named_classes(Features({"id": Value("int64"), "tags": List(ClassLabel(names=["O", "B"]))}))
        >>> types["tags"], readers["tags"]([1, -1, None])
        (List(Value('string')), ['B', None, None])
    """
    types: dict[str, Any] = {}
    readers: dict[str, Callable[[Any], Any]] = {}
    for name, feature in features.items():
        types[name], read = _named(feature)
        if read is not None:
            readers[name] = read
    return Features(types), readers


def noted_features(schema: pa.Schema) -> Features:
    """What `datasets` noted in a Parquet file's schema, if it knows any classes: types of columns that are still so.

    Args:
        schema: of the file.

    Example:
        >>> noted = Features({"kind": ClassLabel(names=["mug", "pan"])})
        >>> noted_features(noted.arrow_schema), noted_features(pa.schema({"kind": pa.int64()}))
        ({'kind': ClassLabel(names=['mug', 'pan'])}, {})
    """
    note = (schema.metadata or {}).get(b"huggingface", b"")
    features, kinds = _features_of(note) if b"ClassLabel" in note else ({}, {})
    there = {name: schema.field(name).type for name in features if name in schema.names}
    return Features({name: features[name] for name, kind in there.items() if kinds[name] == kind})


@lru_cache(maxsize=64)  # the files of a data set hold one note: it warns once
def _features_of(note: bytes) -> tuple[dict[str, Any], dict[str, pa.DataType]]:
    """Types of a note's columns, and Arrow's; without those of another version, or of somebody's own."""
    features: dict[str, Any] = {}
    kinds: dict[str, pa.DataType] = {}
    failed: dict[str, Exception] = {}
    try:
        noted = [*json.loads(note)["info"]["features"].items()]
    except _UNREADABLE as error:
        noted, failed = [], {"": error}
    for name, column in noted:
        try:
            feature = Features.from_dict({name: column})
            kinds[name] = feature.arrow_schema.field(name).type
            features[name] = feature[name]
        except _UNREADABLE as error:
            if "ClassLabel" in json.dumps(column):
                failed[name] = error
    for name, first in [*failed.items()][:1]:
        where, why = f" of column '{name}'" if name else "", f"{type(first).__name__}: {reason_of(first)}"
        logger.warning("the names of classes%s cannot be read (%s): numbers stay", where, why)
    return features, kinds


def class_names(features: Features) -> dict[str, list[str]]:
    """Names of the classes of those columns that are of classes themselves.

    Args:
        features: of a data set.

    Example:
        >>> class_names(Features({"kind": ClassLabel(names=["mug", "pan"]), "text": Value("string")}))
        {'kind': ['mug', 'pan']}
    """
    return {name: feature.names for name, feature in features.items() if isinstance(feature, ClassLabel)}


def with_names(row: dict[str, Any], readers: Readers) -> dict[str, Any]:
    """A row with names in place of class numbers.

    Args:
        row: some columns may be left out.
        readers: of `named_classes`.

    Example:
        >>> _, readers = named_classes(Features({"kind": ClassLabel(names=["mug", "pan"])}))
        >>> with_names({"kind": 1, "text": "pan"}, readers)
        {'kind': 'pan', 'text': 'pan'}
    """
    return row | {name: read(row[name]) for name, read in readers.items() if name in row} if readers else row


def _named(feature: Any) -> tuple[Any, Callable[[Any], Any] | None]:
    """A type without classes, and how a value becomes one of it; None if it stays as it is."""
    if isinstance(feature, ClassLabel):
        names = feature.names
        return Value("string"), lambda value: None if value is None or not 0 <= value < len(names) else names[value]
    if isinstance(feature, (List, LargeList)):
        kind, read = _named(feature.feature)
        if read is None:
            return feature, None
        length = {"length": feature.length} if isinstance(feature, List) else {}
        return type(feature)(kind, **length), lambda items: None if items is None else [read(item) for item in items]
    if isinstance(feature, dict):
        kinds, reads = named_classes(Features(feature))
        if not reads:
            return feature, None

        def fields(value: dict[str, Any] | None) -> dict[str, Any] | None:
            return value and {key: reads[key](item) if key in reads else item for key, item in value.items()}

        return dict(kinds), fields
    return feature, None
