"""Column mappings: our column from one of theirs, from several joined, or from a template.

A template names columns in braces and nothing more: no attribute access and no format codes, since the mapping comes
from a recipe that somebody may have sent you.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from string import Formatter
from typing import Any

import pyarrow as pa

ColumnSpec = str | Sequence[str]
"""A column's name, a list of names to join with " . ", or a template as "{title} . {description}"."""

JOINER = " . "
"""Stands between the parts of a joined column; empty parts leave nothing behind."""


class ColumnMap:
    """A parsed mapping `{our column: ColumnSpec}`.

    Args:
        columns: the mapping.

    Raises:
        ValueError: if a template or a list is malformed.

    Example:
        >>> mapping = ColumnMap({"text": "{title}, {price} $", "id": "uid", "all": ["title", "note"]})
        >>> mapping.needed
        ('title', 'price', 'uid', 'note')
        >>> mapping.apply({"title": "Mug", "price": 3, "uid": 7, "note": ""})
        {'text': 'Mug, 3 $', 'id': 7, 'all': 'Mug'}
    """

    def __init__(self, columns: Mapping[str, ColumnSpec]) -> None:
        if not columns:
            raise ValueError("the column mapping is empty: give at least one {our_name: their_name}")
        parsed = {ours: _parse(ours, spec) for ours, spec in columns.items()}
        self.direct = {ours: spec for ours, spec in columns.items() if isinstance(spec, str) and "{" not in spec}
        self.needed = tuple(dict.fromkeys(name for names, _ in parsed.values() for name in names))
        self._theirs = {ours: names for ours, (names, _) in parsed.items()}
        self._makers = {ours: maker for ours, (_, maker) in parsed.items()}
        self._lists = {ours: tuple(spec) for ours, spec in columns.items() if not isinstance(spec, str)}

    @property
    def ours(self) -> tuple[str, ...]:
        """Names of the columns that come out."""
        return tuple(self._makers)

    def needed_for(self, ours: Iterable[str]) -> tuple[str, ...]:
        """Their columns that some of ours are made of; one that is not mapped has its own name."""
        return tuple(dict.fromkeys(name for column in ours for name in self._theirs.get(column, (column,))))

    def keep_lists(self, names: Iterable[str]) -> None:
        """Let these columns, when mapped from a list of names, hold the list of values instead of the joined text."""
        for ours in set(names) & set(self._lists):
            self._makers[ours] = _list_maker(self._lists[ours])

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Map one row; an absent value counts as None."""
        return {ours: make(row) for ours, make in self._makers.items()}


_Maker = Callable[[Mapping[str, Any]], Any]


def _parse(ours: str, spec: ColumnSpec) -> tuple[tuple[str, ...], _Maker]:
    if isinstance(spec, str):
        if "{" in spec and spec != ours:  # a column that keeps its name is no template, whatever it is called
            return _parse_template(ours, spec)
        return (spec,), lambda row: row.get(spec)
    names = tuple(spec)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"column {ours!r}: a list must hold column names, got {spec!r}")
    return names, lambda row: JOINER.join(filter(None, (as_text(row.get(name)).strip() for name in names)))


def _list_maker(names: tuple[str, ...]) -> _Maker:
    return lambda row: [text for name in names if (text := as_text(row.get(name)))]


def _parse_template(ours: str, template: str) -> tuple[tuple[str, ...], _Maker]:
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"column {ours!r}: bad template {template!r}: {error}") from None
    # "{a:b}" is the column "a:b": names are looked up, never formatted.
    parts = [
        (
            literal,
            None if name is None else name + (f"!{conversion}" if conversion else "") + (f":{code}" if code else ""),
        )
        for literal, name, code, conversion in pieces
    ]
    names = tuple(name for _, name in parts if name is not None)
    if not names or not all(names):
        raise ValueError(f"column {ours!r}: template {template!r} must name its columns, as {{title}}")

    def make(row: Mapping[str, Any]) -> str:
        return "".join(literal + (as_text(row.get(name)) if name else "") for literal, name in parts).strip()

    return names, make


def as_text(value: Any) -> str:
    """Text of any value: what is missing (None, NaN, pandas' NA) is empty, lists and objects become JSON.

    A whole float loses its ".0": a column of integers with a gap is stored as floats, and its identifiers must still
    meet those of another file. Bytes are taken for UTF-8; what does not decode becomes
    lone surrogates, as in `formats`.

    Example:
        >>> as_text(12345.0), as_text(2.5), as_text(float("nan")), as_text(b"Red mug")
        ('12345', '2.5', '', 'Red mug')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1 << 53 else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=as_text)
    return "" if is_missing(value) else str(value)


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN of any kind, pandas' NA and NaT.

    Example:
        >>> is_missing(None), is_missing(float("nan")), is_missing(""), is_missing([])
        (True, True, False, False)
    """
    if value is None or isinstance(value, (str, int)):
        return value is None
    try:
        return bool(value != value)
    except TypeError:  # pandas' NA does not say whether it equals itself
        return True
    except ValueError:  # an array says it of each of its values
        return False


def is_nothing(value: Any) -> bool:
    """Whether a value is missing or infinite."""
    return (isinstance(value, float) and not math.isfinite(value)) or is_missing(value)


_TRUE, _FALSE = frozenset(("true", "yes", "1", "t", "y")), frozenset(("false", "no", "0", "f", "n"))


def _as_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _as_int(text: str) -> int:
    """A whole number; pandas writes 3 as 3.0 in a column that has gaps, but 3.000 may be three thousand."""
    whole, _, rest = text.partition(".")
    thousands = rest == "000" and 1 <= len(whole.lstrip("+-0")) <= 3
    return int(text if rest.strip("0") or thousands else whole)


def converter_to(kind: pa.DataType) -> Callable[[Any], Any]:
    """How a value of a file becomes one that Arrow stores as `kind`; text is parsed, what is empty or missing is null.

    Example:
        >>> converter_to(pa.float32())(" 2.5 "), converter_to(pa.list_(pa.string()))('["a"]')
        (2.5, ['a'])
    """
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return lambda value: None if is_nothing(value) else as_text(value)
    parse = _text_parser(kind)

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return None if is_missing(value) else value
        return parse(value.strip()) if value.strip() else None

    return convert


def _text_parser(kind: pa.DataType) -> Callable[[str], Any]:
    if pa.types.is_integer(kind):
        return _as_int
    if pa.types.is_floating(kind):
        return float
    if pa.types.is_boolean(kind):
        return _as_bool
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat
    if pa.types.is_nested(kind):
        return json.loads
    return lambda text: text
