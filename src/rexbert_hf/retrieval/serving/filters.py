"""Columns that a search may be filtered by: category, brand, price, stock, locale, or any other field of a product.

A filter is a mapping of column to what passes, all of which must hold:

    {"category": "Shoes"}                   a level of the path; "Sport > Shoes" or "Sport>Shoes" is how one begins
    {"brand": ["Acme", "Bolt"]}             any of a list
    {"price": (10, 50)}, {"price": {"max": 50}}  a range, borders included; JSON has the second form only
    {"in_stock": True}, {"locale": "en"}    equal

A product that lacks the value does not pass. What a filter says and what a product's values are is decided here for
every back-end; `filter_columns.py` and `qdrant_points.py` keep the values and compare.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from rexbert_hf.catalog.columns import as_text, is_missing
from rexbert_hf.catalog.nested import PATH_SEPARATOR, attribute_pairs, path_levels
from rexbert_hf.retrieval.serving.texts import valid_text

logger = logging.getLogger(__name__)

FILTER_COLUMNS = ("category_path", "brand", "price", "in_stock", "locale")
"""Columns that an index keeps unless told otherwise; those that no product has are left out."""

_ALIASES = {"category": "category_path", "stock": "in_stock"}
_FALLBACKS = {"locale": ("language",), "in_stock": ("stock",)}
_YES = {"true", "t", "yes", "y", "instock", "available", "limitedavailability", "onlineonly", "instoreonly"}
_NO = {
    *("false", "f", "no", "n", "outofstock", "notinstock", "nostock", "unavailable", "notavailable", "soldout"),
    *("discontinued", "preorder", "presale", "backorder", "reserved", "madetoorder"),
}
"""What feeds and schema.org say of the stock, without spaces and punctuation."""
_COUNTED = {"in", "stock", "left", "only", "available", "pc", "pcs", "pieces", "units", "items", "qty", "quantity"}
"""Words beside a number that count what is there; "3 weeks" does not."""
_SCHEMA = re.compile(r"^(?:(?:https?://)?(?:www\.)?schema\.org/|schema:)", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+")
_SPACES = " '\u00a0\u202f\u2019"
_NUMBER = re.compile(rf"-?(?:\d{{1,3}}(?:[{_SPACES}]\d{{3}}(?!\d))+(?:[.,]\d+)?|(?:(?<![\w.,])[.,])?\d+(?:[.,]\d+)*)")
_DECIMALS = re.compile(r"([.,])(\d{1,2}|\d{4,}|(?<=\b0.)\d{3})$")


def number_of(text: str) -> float | None:
    """The first number of a text, however it is punctuated; None where there is none that can be read.

    The last dot or comma is the decimal mark where one or two digits follow it. Where three do it groups digits, as all
    others do: "1.299" is above a thousand. A mark in front of all digits is one too, unless it ends a word ("Rs.500").

    Args:
        text: such as a price.

    Example:
        >>> [number_of(text) for text in ("$1,050.50", "1.299,00 EUR", "Rp 1.250.000", "19,99", "$.99", "1.2.3")]
        [1050.5, 1299.0, 1250000.0, 19.99, 0.99, None]
    """
    found = _NUMBER.search(text)
    if found is None or re.match(r"[eE][+-]?\d", text[found.end() :]):  # powers of ten are no prices
        return None
    number = re.sub(r"^(-?)(?=[.,])", r"\g<1>0", found[0])
    decimals = _DECIMALS.search(number)
    whole = number[: decimals.start()] if decimals else number
    if decimals and decimals[1] in whole:  # one mark cannot do both
        return None
    digits = re.sub(f"[.,{_SPACES}]", "", whole)
    return float(f"{digits}.{decimals[2]}" if decimals else digits)


def _attributes(product: Mapping[str, Any]) -> dict[str | None, Any]:
    """Attributes by name; of two with one name the first counts."""
    return dict(reversed(attribute_pairs(product.get("attributes"))))


def _value(product: Mapping[str, Any], name: str, attributes: Mapping[str | None, Any]) -> Any:
    for key in (name, *_FALLBACKS.get(name, ())):
        value = product.get(key)
        value = attributes.get(key) if _is_empty(value) else value
        value = value.item() if isinstance(value, np.generic) else value
        value = float(value) if isinstance(value, Decimal) else value  # as databases give prices
        if _is_empty(value):
            continue
        if isinstance(value, (Mapping, bytes)):  # a column of structs is read as the same objects of JSON lines are
            value = as_text(dict(value) if isinstance(value, Mapping) else value)
        if name == "category_path" or isinstance(value, (list, tuple, np.ndarray)):
            value = PATH_SEPARATOR.join(path_levels(value)) or None
        if name == "price" and isinstance(value, str):
            number = number_of(value)
            several = value.startswith("{") and len(_NUMBER.findall(value)) > 1  # of an object, which of them?
            value = math.nan if number is None or several else number
        if name in ("price", "in_stock") and not isinstance(value, (str, int, float, type(None))):  # such as a date
            value = math.nan
        if name == "in_stock" and value is not None:
            value = _stock_of(value)
        return valid_text(value) if isinstance(value, str) else value
    return None


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value)


def _stock_of(value: str | float) -> bool | float:
    """What a number or a text says of the stock, in words or by how many there are; NaN for neither yes nor no."""
    if not isinstance(value, str):
        return value if math.isnan(value) else value > 0
    text = value
    words = _LETTERS.findall(_SCHEMA.sub("", text.strip()).lower())
    number = number_of(text)
    if number is not None and set(words) <= _COUNTED:
        return number > 0
    said = "".join(words)
    return True if said in _YES else False if said in _NO else math.nan


def filter_values(product: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A product's filter columns, fields or attributes of these names; those that it lacks are left out.

    `locale` falls back to `language`; the first number of a textual price counts, and NaN stands for a price that holds
    none, and for a stock that says neither yes nor no. A mapping is its JSON text, as the readers of files have it.

    Args:
        product: a `PRODUCT` row or any mapping.
        names: of the columns.

    Example:
        >>> filter_values({"attributes": [{"name": "price", "value": "$1,050.50"}]}, ["price"])
        {'price': 1050.5}
        >>> filter_values({"category_path": ["Home", "Lamps"]}, ["category"])
        {'category_path': 'Home > Lamps'}
        >>> [filter_values({"in_stock": text}, ["in_stock"])["in_stock"] for text in ("5 left", "Sold out", "ask us")]
        [True, False, nan]
    """
    attributes = _attributes(product)
    values = {name: _value(product, name, attributes) for name in columns_of(names)}
    return {name: value for name, value in values.items() if value is not None}


def columns_of(names: Iterable[str]) -> list[str]:
    """Full names of columns."""
    return [_ALIASES.get(name, name) for name in names]


@dataclass(frozen=True)
class Condition:
    """What passes of one column: any of some values, or a range.

    Attributes:
        choices: texts or numbers; None for a range.
        low: least number of a range.
        high: largest.
    """

    choices: tuple[str, ...] | tuple[float, ...] | None
    low: float = -math.inf
    high: float = math.inf


def parse_filter(wanted: Mapping[str, Any], texts: Mapping[str, bool]) -> dict[str, Condition]:
    """A filter's conditions by column, checked against the columns that an index has.

    Args:
        wanted: the filter.
        texts: of each column, whether it holds texts; it holds numbers and truth values otherwise.

    Raises:
        ValueError: for what is no mapping, a column that the index does not have, a condition that does not fit it.

    Example:
        >>> parse_filter({"brand": "Acme", "price": {"max": 9}}, {"brand": True, "price": False})["price"]
        Condition(choices=None, low=-inf, high=9.0)
    """
    if not isinstance(wanted, Mapping):
        raise ValueError(f"a filter is a mapping such as {{'price': (10, 50)}}, not {wanted!r}")
    found: dict[str, Condition] = {}
    for key, condition in wanted.items():
        name = _ALIASES.get(key, key)
        if name not in texts:
            known = ", ".join(sorted(texts)) or "none"
            raise ValueError(f"filter: no column '{name}' in this index; it has: {known} (build with filters=[...])")
        if name in found:
            raise ValueError(f"filter: '{key}' and '{name}' are one column: give it one condition")
        found[name] = _condition(name, condition, texts[name])
    return found


def _condition(name: str, wanted: Any, texts: bool) -> Condition:
    if isinstance(wanted, Mapping):
        if unknown := set(wanted) - {"min", "max"}:
            first = sorted(map(str, unknown))[0]
            raise ValueError(f"filter {name}: unknown {first!r}; a range is {{'min': .., 'max': ..}}")
        wanted = (wanted.get("min"), wanted.get("max"))
    if isinstance(wanted, tuple):
        if len(wanted) != 2 or texts:
            what = "holds texts" if texts else f"takes (low, high), not {wanted!r}"
            raise ValueError(f"filter {name}: the column {what}; a list is any of its values")
        low, high = (None if end is None else _number(name, end) for end in wanted)
        return Condition(None, -math.inf if low is None else low, math.inf if high is None else high)
    choices = list(wanted) if isinstance(wanted, (list, set, frozenset, np.ndarray)) else [wanted]
    if not texts:
        if name == "price" and isinstance(wanted, list) and len(wanted) == 2:
            _tell_of_ranges()
        return Condition(tuple(_number(name, choice) for choice in choices))
    if wrong := [choice for choice in choices if not isinstance(choice, str)]:
        raise ValueError(f"filter {name}: the column holds texts, not {wrong[0]!r}")
    given = [str(choice) for choice in choices]
    if name == "category_path":  # as it is kept; and as it is written, for a level of a list may hold a > itself
        given += [PATH_SEPARATOR.join(path_levels(choice)) for choice in given]
    return Condition(tuple(dict.fromkeys(given)))


@functools.cache
def _tell_of_ranges() -> None:
    """Once: where a request's JSON meant a range, nothing at all would be found, and no search tells why."""
    logger.warning("filter price: a list is these prices alone; a range is a tuple, or {'min': .., 'max': ..} in JSON")


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (bool, int, float, Decimal, np.number, np.bool_)) or math.isnan(value):
        due = "True and False" if name == "in_stock" else "numbers"
        raise ValueError(f"filter {name}: the column holds {due}, not {value!r}")
    return float(value)
