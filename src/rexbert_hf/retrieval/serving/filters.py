"""Columns that a search may be filtered by: category, brand, price, stock, locale, or any other field of a product.

A filter is a mapping of column to what passes, all of which must hold:

    {"category": "Shoes"}                   a level of the path; "Sport > Shoes" is the beginning of one
    {"brand": ["Acme", "Bolt"]}             any of a list
    {"price": (10, 50)}, {"price": (None, 50)}   a range, borders included
    {"in_stock": True}, {"locale": "en"}    equal

A product that lacks the value does not pass. Values are kept as numbers in numpy arrays (texts by their place in a
list of distinct ones), so a filter over a million products takes a few milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rexbert_hf.retrieval.serving.texts import valid_text

FILTER_COLUMNS = ("category_path", "brand", "price", "in_stock", "locale")
"""Columns that an index keeps unless told otherwise; those that no product has are left out."""

PATH_SEPARATOR = " > "

_ALIASES = {"category": "category_path", "stock": "in_stock"}
_FALLBACKS = {"locale": ("language",), "in_stock": ("stock",)}
_YES = {"1", "true", "t", "yes", "y", "in stock", "instock", "in_stock"}
_NUMBER = re.compile(r"-?\d+(?:[.,]\d{3})*(?:\.\d+)?|-?\d+")


def field_value(product: Mapping[str, Any], name: str) -> Any:
    """The value of a product's field, or of its attribute of that name, for a filter column.

    `locale` falls back to `language`; the first number of a textual price counts.

    Args:
        product: a `PRODUCT` row or any mapping.
        name: the column.

    Example:
        >>> field_value({"attributes": [{"name": "price", "value": "$1,050.50"}]}, "price")
        1050.5
        >>> field_value({"category_path": ["Home", "Lamps"]}, "category_path")
        'Home > Lamps'
    """
    for key in (name, *_FALLBACKS.get(name, ())):
        value = product.get(key)
        if value is None:
            found = [a["value"] for a in product.get("attributes") or () if a["name"] == key]
            value = found[0] if found else None
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, (list, tuple)):
            value = PATH_SEPARATOR.join(str(level) for level in value) or None
        if name == "price" and isinstance(value, str):
            number = _NUMBER.search(value)
            value = float(number[0].replace(",", "")) if number else None
        if name == "in_stock" and value is not None:
            value = value.strip().lower() in _YES if isinstance(value, str) else value > 0
        return valid_text(value) if isinstance(value, str) else value
    return None


@dataclass
class Column:
    """One column: texts by their place in `texts`, numbers and truth values as float64 (NaN: none).

    Attributes:
        values: int32 places (-1: none) of texts, else float64.
        texts: distinct texts; None for numbers.
    """

    values: np.ndarray
    texts: list[str] | None = None
    _places: dict[str, int] = field(default_factory=dict)

    @classmethod
    def like(cls, value: Any, rows: int) -> Column:
        """An empty column for values of this kind."""
        if isinstance(value, str):
            return cls(np.full(rows, -1, np.int32), [])
        return cls(np.full(rows, np.nan))

    def code(self, value: Any, name: str, product_id: str) -> float:
        """What is stored for a value.

        Raises:
            ValueError: if it is a text where the others are numbers, or the other way round.
        """
        if value is None:
            return -1 if self.texts is not None else math.nan
        if (self.texts is None) == isinstance(value, str) or not isinstance(value, (str, int, float)):
            kind = "texts" if self.texts is not None else "numbers"
            raise ValueError(f"product {product_id}: {name} is {value!r}, but the column holds {kind}: make them one")
        if self.texts is None or not isinstance(value, str):
            return float(value)
        if len(self._places) != len(self.texts):
            self._places = {text: place for place, text in enumerate(self.texts)}
        if value not in self._places:
            self._places[value] = len(self.texts)
            self.texts.append(value)
        return self._places[value]

    def passing(self, wanted: Any, name: str) -> np.ndarray:
        """Which rows pass, bool `[N]`.

        Args:
            wanted: a value, a list of values, or a range (low, high).
            name: of the column, for messages.
        """
        if isinstance(wanted, Mapping):
            if unknown := set(wanted) - {"min", "max"}:
                raise ValueError(f"filter {name}: unknown {sorted(unknown)[0]!r}; a range is {{'min': .., 'max': ..}}")
            wanted = (wanted.get("min"), wanted.get("max"))
        if isinstance(wanted, tuple):
            return self._in_range(wanted, name)
        choices = list(wanted) if isinstance(wanted, (list, set, frozenset, np.ndarray)) else [wanted]
        if self.texts is None:
            if not all(isinstance(choice, (bool, int, float, np.number)) for choice in choices):
                raise ValueError(f"filter {name}: the column holds numbers, not {choices[0]!r}")
            passing = np.zeros(len(self.values), dtype=bool)
            for choice in choices:
                passing |= self.values == float(choice)
            return passing
        if not all(isinstance(choice, str) for choice in choices):
            raise ValueError(f"filter {name}: the column holds texts, not {choices[0]!r}")
        table = np.array([_text_passes(text, choices, name) for text in self.texts] + [False])
        return table[self.values]  # -1 is the last entry

    def _in_range(self, wanted: tuple[Any, ...], name: str) -> np.ndarray:
        if len(wanted) != 2 or self.texts is not None:
            what = "holds texts" if self.texts is not None else f"takes (low, high), not {wanted!r}"
            raise ValueError(f"filter {name}: the column {what}; a list is any of its values")
        low, high = (-math.inf if wanted[0] is None else wanted[0]), (math.inf if wanted[1] is None else wanted[1])
        return (self.values >= low) & (self.values <= high)

    def to_arrow(self) -> pa.Array:
        """The values, nulls where there are none."""
        if self.texts is None:
            return pa.array(self.values, pa.float64(), from_pandas=True)
        codes = pa.array(self.values, pa.int32(), mask=self.values < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.texts, pa.string()))


def _text_passes(text: str, choices: Sequence[str], name: str) -> bool:
    if name != "category_path":
        return text in choices
    levels = text.split(PATH_SEPARATOR)
    return any(
        choice in levels if PATH_SEPARATOR not in choice else f"{text}{PATH_SEPARATOR}".startswith(
            f"{choice}{PATH_SEPARATOR}"
        )
        for choice in choices
    )  # fmt: skip


class FilterColumns:
    """The filter columns of all rows of an index.

    Args:
        names: columns to keep.

    Example:
        >>> columns = FilterColumns(["brand", "price"])
        >>> columns.extend([{"brand": "Acme", "price": 5}, {"brand": "Bolt", "price": "$9.50"}, {}], ["a", "b", "c"])
        >>> columns.mask({"price": (None, 9.5)}).tolist(), columns.mask({"brand": ["Bolt"]}).tolist()
        ([True, True, False], [False, True, False])
    """

    def __init__(self, names: Iterable[str] = FILTER_COLUMNS) -> None:
        self.names = [_ALIASES.get(name, name) for name in names]
        self.columns: dict[str, Column] = {}
        self.rows = 0

    def extend(self, products: Sequence[Mapping[str, Any]], product_ids: Sequence[str]) -> None:
        """Add a row for each product.

        Args:
            products: the records.
            product_ids: their ids, for messages.
        """
        codes: dict[str, np.ndarray] = {}  # all of them before any is kept: a wrong value changes nothing
        for name in self.names:
            values = [field_value(product, name) for product in products]
            column = self._column(name, values)
            if column is not None:
                pairs = zip(values, product_ids, strict=True)
                codes[name] = np.array([column.code(value, name, i) for value, i in pairs], dtype=column.values.dtype)
        for name, new in codes.items():
            self.columns[name].values = np.concatenate([self.columns[name].values, new])
        self.rows += len(products)

    def replace(self, row: int, product: Mapping[str, Any], product_id: str) -> None:
        """Write a row anew.

        Args:
            row: its number.
            product: the record.
            product_id: its id, for messages.
        """
        for name in self.names:
            value = field_value(product, name)
            column = self._column(name, [value])
            if column is not None:
                column.values[row] = column.code(value, name, product_id)

    def _column(self, name: str, values: Sequence[Any]) -> Column | None:
        first = next((value for value in values if value is not None), None)
        if name not in self.columns and first is not None:
            self.columns[name] = Column.like(first, self.rows)
        return self.columns.get(name)

    def mask(self, wanted: Mapping[str, Any]) -> np.ndarray:
        """Rows that pass all conditions of a filter, bool `[N]`.

        Args:
            wanted: the filter.

        Raises:
            ValueError: for a column that the index does not have, or a condition that does not fit it.
        """
        passing = np.ones(self.rows, dtype=bool)
        for key, condition in canonical(wanted).items():
            if key not in self.columns:
                known = ", ".join(self.columns) or "none"
                raise ValueError(f"filter: no column '{key}' in this index; it has: {known} (build with filters=[...])")
            passing &= self.columns[key].passing(condition, key)
        return passing

    def at(self, row: int) -> dict[str, str | float]:
        """What a row holds, by column; columns that it lacks are left out.

        Args:
            row: its number.

        Example:
            >>> columns = FilterColumns(["brand", "price"])
            >>> columns.extend([{"brand": "Acme", "price": 5}, {"brand": "Bolt"}], ["a", "b"])
            >>> columns.at(0), columns.at(1)
            ({'brand': 'Acme', 'price': 5.0}, {'brand': 'Bolt'})
        """
        found: dict[str, str | float] = {}
        for name, column in self.columns.items():
            value = column.values[row]
            if column.texts is not None and value >= 0:
                found[name] = column.texts[value]
            elif column.texts is None and not math.isnan(value):
                found[name] = float(value)
        return found

    def kept(self, rows: np.ndarray) -> FilterColumns:
        """A copy with these rows only, in this order."""
        copy = FilterColumns(self.names)
        for name, column in self.columns.items():
            copy.columns[name] = Column(column.values[rows], None if column.texts is None else list(column.texts))
        copy.rows = len(rows)
        return copy

    def to_arrow(self) -> dict[str, pa.Array]:
        """The columns by name."""
        return {name: column.to_arrow() for name, column in self.columns.items()}

    @classmethod
    def from_arrow(cls, names: Iterable[str], table: pa.Table) -> FilterColumns:
        """Columns of a table that `to_arrow` filled.

        Args:
            names: columns that the index keeps.
            table: may lack those that no product has.
        """
        filters = cls(names)
        filters.rows = table.num_rows
        for name in filters.names:
            if name not in table.column_names:
                continue
            array = table.column(name).combine_chunks()
            if pa.types.is_floating(array.type):
                filters.columns[name] = Column(array.to_numpy(zero_copy_only=False).copy())
                continue
            coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
            places = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            filters.columns[name] = Column(places, coded.dictionary.to_pylist())
        return filters


def canonical(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A filter with the full names of its columns.

    Args:
        wanted: the filter.

    Raises:
        ValueError: if it is no mapping.
    """
    if not isinstance(wanted, Mapping):
        raise ValueError(f"a filter is a mapping such as {{'price': (10, 50)}}, not {wanted!r}")
    return {_ALIASES.get(key, key): condition for key, condition in wanted.items()}
