"""Lists in a record, whatever they were written as: product ids, the levels of a category, name/value attributes.

Parquet has lists, JSON has them too, CSV has text only, and each tool writes another one; what is read here is the same
for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .columns import as_text, is_missing

PATH_SEPARATOR = " > "
"""Stands between the levels of a category where its path is one text."""

_ID_SEPARATORS = ("|", ";", ",")
_ID_FORMS = "a list of product ids is a JSON list, or ids with spaces, commas, semicolons or pipes between them"
_NOT_IDS = re.compile(r"[\[{(]")


def product_ids(value: Any) -> list[str]:
    """Product ids of one field of a click log.

    Of pipes, semicolons, commas and spaces the first that stands in a text parts it, so ids may hold those behind it.

    Args:
        value: a list, or text: a JSON list, or ids with a separator.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> product_ids("12 3"), product_ids("12, 3"), product_ids('["12", 3]'), product_ids([12, "3"]), product_ids("")
        (['12', '3'], ['12', '3'], ['12', '3'], ['12', '3'], [])
    """
    items = _as_list(value)
    if isinstance(items, str):
        text = items.strip()
        if _NOT_IDS.match(text):
            items = _json_of(text)
        else:
            items = text.split(next((sign for sign in _ID_SEPARATORS if sign in text), None))
    elif is_missing(items):
        return []
    if not isinstance(items, list) or not all(_may_be_id(item) for item in items):
        raise ValueError(f"{str(value)[:60]!r}: {_ID_FORMS}")
    return [name for item in items if (name := as_text(item).strip())]


def _may_be_id(item: Any) -> bool:
    return is_missing(item) or (isinstance(item, (str, int, float, np.number)) and not isinstance(item, bool))


def path_levels(value: Any) -> list[str]:
    """Levels of a category path, from the department down; none where there is no path.

    Args:
        value: a list, a JSON list, or text with > between the levels.

    Example:
        >>> path_levels(["Home", "Lamps"]), path_levels('["Home", "Lamps"]'), path_levels("Home>Lamps")
        (['Home', 'Lamps'], ['Home', 'Lamps'], ['Home', 'Lamps'])
    """
    items = _as_list(value)
    if isinstance(items, str):
        parsed = _json_of(items)
        items = parsed if isinstance(parsed, list) else items.split(PATH_SEPARATOR.strip())
    return [text for level in (items if isinstance(items, list) else [items]) if (text := as_text(level).strip())]


def attribute_pairs(value: Any) -> list[tuple[str | None, Any]]:
    """Names and values of a product's attributes; those without a value are left out.

    Args:
        value: a list of {name, value}, of pairs or of mappings; a mapping of names to values; either as JSON text; or
            plain text, which is one value without a name.

    Example:
        >>> attribute_pairs([{"name": "colour", "value": "red"}]), attribute_pairs({"colour": "red"})
        ([('colour', 'red')], [('colour', 'red')])
        >>> attribute_pairs('{"colour": ["red", "blue"], "size": null}'), attribute_pairs("colour red")
        ([('colour', 'red, blue')], [(None, 'colour red')])
    """
    items = _as_list(value)
    if isinstance(items, str):
        parsed = _json_of(items)
        items = items.strip() if parsed is None else parsed
    found = [pair for item in (items if isinstance(items, list) else [items]) for pair in _pairs_of(item)]
    return [(name, kept) for name, given in found if not is_missing(kept := _one_value(given)) and kept != ""]


def attribute_records(value: Any) -> list[dict[str, str | None]]:
    """Attributes as a `PRODUCT` row has them.

    Args:
        value: as in `attribute_pairs`.

    Example:
        >>> attribute_records({"watts": 40})
        [{'name': 'watts', 'value': '40'}]
    """
    return [{"name": name, "value": as_text(given)} for name, given in attribute_pairs(value)]


def _pairs_of(item: Any) -> list[tuple[str | None, Any]]:
    if isinstance(item, Mapping):
        if item.keys() == {"name", "value"}:
            return [(as_text(item["name"]).strip() or None, item["value"])]
        return [(as_text(name).strip() or None, given) for name, given in item.items()]
    if isinstance(item, (list, tuple)) and len(item) == 2:  # as Arrow gives a map
        return [(as_text(item[0]).strip() or None, item[1])]
    return [(None, item)]


def _one_value(given: Any) -> Any:
    """Text is stripped, several values are one text, a mapping is JSON; numbers and truth values stay."""
    given = _as_list(given)
    if isinstance(given, list):
        return ", ".join(text for item in given if (text := as_text(item).strip()))
    return as_text(given).strip() if isinstance(given, (str, bytes, Mapping)) else given


def _as_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value


def _json_of(text: str) -> Any:
    """The list or object that a text is in JSON, else None."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
