"""Class numbers of `datasets` (`ClassLabel`) as the names that they stand for.

One decision worth knowing: a number without its names means nothing, or worse, something else: 0 and 1 are grades of a
click log. So names are what comes out, wherever the class stands: in a column, a list or an object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import ClassLabel, Features, LargeList, List, Value


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
