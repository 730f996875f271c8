"""What a settings field may be: the annotations that are understood, their names in messages, and their defaults.

Counts may be written as people write them: `1e6`, `1_000_000`, `35M`, `250B`, `1.7T`, `64k`.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union

MISSING = dataclasses.MISSING
SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d{1,4})?)\s*([kKmMgGbBtT]?)\Z")
_SEQUENCES = (list, tuple, Sequence, set, frozenset)


def parse_number(text: str) -> Decimal | None:
    """Read a number exactly, with the suffixes k, M, B (or G) and T; None when it is not one.

    >>> [int(parse_number(text)) for text in ("1e6", "1_000", "35M", "1.7T", "64k")]
    [1000000, 1000, 35000000, 1700000000000, 64000]
    >>> parse_number("12 apples") is None
    True
    """
    match = _NUMBER.match(text.strip())
    if match is None:
        return None
    return Decimal(match[1].replace("_", "")) * SUFFIXES.get(match[2].lower(), 1)


def members(kind: Any) -> tuple[Any, ...]:
    """Alternatives of a union, or the type alone; `Annotated` is looked through.

    >>> members(float | None), members(int)
    ((<class 'float'>, <class 'NoneType'>), (<class 'int'>,))
    """
    if typing.get_origin(kind) is typing.Annotated:
        return members(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (Union, types.UnionType):
        return tuple(inner for member in typing.get_args(kind) for inner in members(member))
    return (kind,)


def is_record(kind: Any) -> bool:
    """Whether a type is a dataclass.

    >>> is_record(int)
    False
    """
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def is_list(kind: Any) -> bool:
    """Whether a type is a list or a tuple.

    >>> is_list(list[int]), is_list(str)
    (True, False)
    """
    return (typing.get_origin(kind) or kind) in _SEQUENCES


def is_mapping(kind: Any) -> bool:
    """Whether a type is a dict.

    >>> is_mapping(dict[str, int]), is_mapping(int)
    (True, False)
    """
    return (typing.get_origin(kind) or kind) in (dict, Mapping)


def type_name(kind: Any) -> str:
    """Name a type as a message or the help shows it.

    >>> type_name(float | list[float] | None)
    'float or list of float or null'
    >>> type_name(Literal["a", "b"])
    'one of a, b'
    """
    alternatives = members(kind)
    if len(alternatives) > 1:
        return " or ".join(type_name(member) for member in alternatives)
    kind, args = alternatives[0], typing.get_args(alternatives[0])
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) for value in args)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    if is_list(kind):
        inner = [type_name(arg) for arg in args if arg is not Ellipsis] or ["anything"]
        fixed = typing.get_origin(kind) is tuple and Ellipsis not in args
        return f"({', '.join(inner)})" if fixed else f"list of {inner[0]}"
    if is_mapping(kind):
        return f"mapping to {type_name(args[1]) if args else 'anything'}"
    if kind is bool:
        return "true or false"
    return {Path: "path", Any: "anything"}.get(kind) or str(getattr(kind, "__name__", kind))


def field_types(cls: type) -> dict[str, Any]:
    """Resolved types of the fields that the constructor takes, by name, in order.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: int = 0
    >>> field_types(Point)
    {'x': <class 'int'>}
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def field_default(cls: type, name: str, base: Any = None) -> Any:
    """Value of a field when nothing is written: from the base instance, else the class; `MISSING` if required."""
    if isinstance(base, cls):
        return getattr(base, name)
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    return field.default_factory() if field.default_factory is not MISSING else field.default
