"""The filter columns of all rows of an index in FAISS, in memory and as Arrow columns.

Values are kept as numbers in numpy arrays (texts by their place in a list of distinct ones), so a filter over a million
products takes a few milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rexbert_hf.catalog.nested import PATH_SEPARATOR
from rexbert_hf.retrieval.serving.filters import (
    FILTER_COLUMNS,
    Condition,
    columns_of,
    parse_filter,
)


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

    def passing(self, wanted: Condition, name: str) -> np.ndarray:
        """Which rows pass, bool `[N]`.

        Args:
            wanted: a condition that fits the column.
            name: of the column.
        """
        if wanted.choices is None:
            return (self.values >= wanted.low) & (self.values <= wanted.high)
        if self.texts is None:
            return np.isin(self.values, wanted.choices)
        table = np.array([_text_passes(text, wanted.choices, name) for text in self.texts] + [False])
        return table[self.values]  # -1 is the last entry

    def held(self, rows: np.ndarray) -> list[str]:
        """Distinct texts of some rows; [] for numbers.

        Args:
            rows: bool `[N]`.
        """
        if self.texts is None:
            return []
        return [self.texts[place] for place in np.unique(self.values[rows]) if place >= 0]

    def to_arrow(self) -> pa.Array:
        """The values, nulls where there are none."""
        if self.texts is None:
            return pa.array(self.values, pa.float64(), from_pandas=True)
        codes = pa.array(self.values, pa.int32(), mask=self.values < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.texts, pa.string()))


def _text_passes(text: str, choices: Sequence[Any], name: str) -> bool:
    if name != "category_path":
        return text in choices
    levels = text.split(PATH_SEPARATOR)
    return any(
        choice in levels if PATH_SEPARATOR not in choice else f"{text}{PATH_SEPARATOR}".startswith(
            f"{choice}{PATH_SEPARATOR}"
        )
        for choice in choices
    )  # fmt: skip


Coded = dict[str, tuple[Column, np.ndarray]]
"""What is stored for a batch of products: by name, a column and their codes in it."""


class FilterColumns:
    """The filter columns of all rows of an index.

    Args:
        names: columns to keep.

    Example:
        >>> columns = FilterColumns(["brand", "price"])
        >>> products = [{"brand": "Acme", "price": 5}, {"brand": "Bolt"}, {}]
        >>> columns.append(columns.coded(products, ["a", "b", "c"]), np.arange(3))
        >>> columns.mask({"price": (None, 9.5)}).tolist(), columns.mask({"brand": ["Bolt"]}).tolist()
        ([True, False, False], [False, True, False])
    """

    def __init__(self, names: Iterable[str] = FILTER_COLUMNS) -> None:
        self.names = columns_of(names)
        self.columns: dict[str, Column] = {}
        self.rows = 0

    def coded(self, values: Sequence[Mapping[str, Any]], product_ids: Sequence[str]) -> Coded:
        """What is stored for products; nothing is stored yet, so that a wrong value changes nothing.

        Args:
            values: of each product, by column (see `filter_values`).
            product_ids: their ids, for messages.

        Raises:
            ValueError: for a text where a column holds numbers, or the other way round; the product is named.
        """
        found: Coded = {}
        for name in self.names:
            given = [product.get(name) for product in values]
            first = next((value for value in given if value is not None), None)
            column = self.columns.get(name) or (None if first is None else Column.like(first, self.rows))
            if column is not None:
                pairs = zip(given, product_ids, strict=True)
                codes = [column.code(value, name, product_id) for value, product_id in pairs]
                found[name] = column, np.array(codes, dtype=column.values.dtype)
        return found

    def write(self, rows: np.ndarray, coded: Coded, places: np.ndarray) -> None:
        """Write rows anew.

        Args:
            rows: their numbers.
            coded: see `coded`.
            places: of the products of `rows` in it.
        """
        for name, (column, codes) in coded.items():
            self.columns.setdefault(name, column).values[rows] = codes[places]

    def append(self, coded: Coded, places: np.ndarray) -> None:
        """Add rows.

        Args:
            coded: see `coded`.
            places: of their products in it.
        """
        kept = {name: self.columns.get(name, column) for name, (column, _) in coded.items()}
        values = {name: np.concatenate([kept[name].values, codes[places]]) for name, (_, codes) in coded.items()}
        for name, column in kept.items():  # nothing fails from here on
            column.values = values[name]
        self.columns |= kept
        self.rows += len(places)

    @property
    def texts(self) -> dict[str, bool]:
        """Of each column, whether it holds texts."""
        return {name: column.texts is not None for name, column in self.columns.items()}

    def mask(self, wanted: Mapping[str, Any]) -> np.ndarray:
        """Rows that pass all conditions of a filter, bool `[N]`.

        Args:
            wanted: the filter.

        Raises:
            ValueError: for a column that the index does not have, or a condition that does not fit it.
        """
        return self.passing(parse_filter(wanted, self.texts))

    def passing(self, conditions: Mapping[str, Condition]) -> np.ndarray:
        """Rows that pass all conditions, bool `[N]`.

        Args:
            conditions: of `parse_filter`.
        """
        passing = np.ones(self.rows, dtype=bool)
        for name, condition in conditions.items():
            passing &= self.columns[name].passing(condition, name)
        return passing

    def at(self, row: int) -> dict[str, str | float]:
        """What a row holds, by column; columns that it lacks are left out.

        Args:
            row: its number.

        Example:
            >>> columns = FilterColumns(["brand", "price"])
            >>> products = [{"brand": "Acme", "price": 5}, {"brand": "Bolt"}]
            >>> columns.append(columns.coded(products, ["a", "b"]), np.arange(2))
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
