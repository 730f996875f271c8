"""Titles with their attribute values, in the JSON lines of OA-Mine, AE-110k and WDC PAVE as they are shared.

A line is `{"input": title, "category": ..., "target_scores": {attribute: {value: 1}}}`. "n/a" says that a title lacks
the attribute. Values are the title's own letters; blanks at their ends, which some annotations have, are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .whole_files import json_of, text_of

ABSENT_VALUE = "n/a"
"""Stands where the title does not say the attribute."""


class AttributedTitle(NamedTuple):
    """A title and the values it says.

    Attributes:
        title: the text.
        values: (attribute, value), each value a part of the title.
        category: of the product, None where the source does not say.
        where: file and line.
    """

    title: str
    values: tuple[tuple[str, str], ...]
    category: str | None
    where: str


def attributed_title(
    title: str, values: Iterable[tuple[str, str]], where: str, category: str | None = None
) -> AttributedTitle:
    """Check a title and its values.

    Args:
        title: the text.
        values: (attribute, value).
        where: file and row, for messages.
        category: of the product.

    Raises:
        ValueError: if the title is empty, an attribute has no name, or a value is no text or not in the title.

    Example:
        >>> attributed_title("Red mug", [("colour", " Red ")], "row 0").values
        (('colour', 'Red'),)
        >>> attributed_title("Red mug", [("colour", "blue")], "row 0")
        Traceback (most recent call last):
        ...
        ValueError: row 0: the value 'blue' of 'colour' is not in the title
    """
    if not title.strip():
        raise ValueError(f"{where}: the title is empty")
    kept = []
    for name, value in values:
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"{where}: the value {value!r} of {name!r} is no text")
        value = value.strip()
        if not value or value.lower() == ABSENT_VALUE:
            continue
        if not name.strip():
            raise ValueError(f"{where}: the value {value!r} has no attribute")
        if value not in title:
            raise ValueError(f"{where}: the value {value!r} of {name!r} is not in the title")
        kept.append((name, value))
    return AttributedTitle(title, tuple(dict.fromkeys(kept)), category, where)


def read_attributed_titles(path: str | Path) -> list[AttributedTitle]:
    """Read JSON lines of titles with attribute values.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if a line has another form or a value is not in its title, with the line.
    """
    lines = text_of(path).split("\n")
    return [_title(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _title(line: str, where: str) -> AttributedTitle:
    entry = json_of(line, where)
    try:
        targets: Mapping[str, Any] = entry["target_scores"]
        values = [(name, value) for name, scores in targets.items() for value in scores]
        return attributed_title(entry["input"], values, where, entry.get("category"))
    except (KeyError, TypeError, AttributeError) as error:
        shown = f"{type(error).__name__} {error}"
        raise ValueError(f"{where}: not {{input, target_scores: {{attribute: {{value: 1}}}}}} ({shown})") from None
