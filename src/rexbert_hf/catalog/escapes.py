r"""Characters that a publisher left as escapes: `\xe2\x9c\xa8` for the bytes of one in UTF-8, `\u2019` for its number.

Titles of the Shopee data and tweets of SemEval hold them. What is no valid character stays as it is written. And text
that a spreadsheet would take for a formula, and names that would break a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_LISTED = 30
"""Names of a file that a message lists; a broken one has as many as it has lines."""
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_BYTES = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
_NUMBERS = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")


def unescape(text: str) -> str:
    r"""Replace the escapes in a text by the characters that they stand for.

    Args:
        text: as published.

    Example:
        >>> unescape(r"\xc3\x89clair, isn\u2019t it, \xff") == "\u00c9clair, isn\u2019t it, \\xff"
        True
    """
    if "\\" not in text:
        return text
    return _NUMBERS.sub(_of_numbers, _BYTES.sub(_of_bytes, text))


def _of_bytes(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _of_numbers(match: re.Match[str]) -> str:
    """Numbers above 0xffff are written as two."""
    data = b"".join(int(digits, 16).to_bytes(2, "big") for digits in match[0].split("\\u")[1:])
    try:
        return data.decode("utf-16-be")
    except UnicodeDecodeError:
        return match[0]


def listed(names: Iterable[object]) -> str:
    r"""Names of fields or columns for a message of one line, whatever a file calls them.

    Args:
        names: as read.

    Example:
        >>> listed(["title", "pri\nce"]), listed([])
        ("title, 'pri\\nce'", 'none')
    """
    found = [name if isinstance(name, str) and name.isprintable() else repr(name) for name in names]
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(found[:MOST_LISTED]) + more or "none"


def as_cell(text: str) -> str:
    """A text that nobody vouches for, for a CSV that people open: a spreadsheet shows it and runs no formula of it.

    Args:
        text: of a crawl, a model or a searcher.

    Example:
        >>> as_cell("=1+1"), as_cell("a = b")
        ("'=1+1", 'a = b')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text that `as_cell` made a cell of; one that it did not change, or that lost its apostrophe, stays.

    Args:
        cell: of such a CSV.

    Example:
        >>> from_cell("'=1+1"), from_cell("'tis"), from_cell("-5 freezer")
        ('=1+1', "'tis", '-5 freezer')
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
