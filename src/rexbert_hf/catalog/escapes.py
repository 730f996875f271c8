r"""Characters that a publisher left as escapes: `\xe2\x9c\xa8` for the bytes of one in UTF-8, `\u2019` for its number.

Titles of the Shopee data and tweets of SemEval hold them. What is no valid character stays as it is written.
"""

from __future__ import annotations

import re

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
