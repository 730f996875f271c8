"""What text from outside becomes before it is encoded, stored or shown.

JSON and forms can hold halves of surrogate pairs, which no tokenizer and no file takes; a search box can hold anything.
"""

from __future__ import annotations

import unicodedata

_DROPPED = dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
# Marks that turn the direction of what follows: they say nothing about a product and can garble a page. Joiners stay,
# emoji and several scripts need them.

READ_FOR_EACH = 4
"""Characters of what was typed that are read for each that may stay: blanks and control characters are dropped."""


def valid_text(text: str) -> str:
    r"""A text that can be written as UTF-8; what cannot is a question mark.

    Args:
        text: any.

    Example:
        >>> valid_text("lamp \ud83d")
        'lamp ?'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def typed_text(text: str, limit: int) -> tuple[str, bool]:
    r"""What somebody typed or pasted, on one line without control characters, and whether it had to be cut.

    Args:
        text: any.
        limit: most characters; the cut is made between words where there is a space.

    Example:
        >>> typed_text("red\n\x00 lamp  ", 100), typed_text("red lamp for the desk", 10)
        (('red lamp', False), ('red lamp', True))
    """
    beginning = valid_text(text[: READ_FOR_EACH * limit]).translate(_DROPPED)
    plain = "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in beginning)
    plain = " ".join(plain.split())
    if len(plain) <= limit:
        return plain, len(text) > READ_FOR_EACH * limit
    kept = plain[: limit + 1]
    return (kept[: kept.rindex(" ")] if " " in kept else kept[:limit]), True
