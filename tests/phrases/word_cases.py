"""A word splitter and a phrase matcher written out plainly, and texts that strain them."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

ALPHABET = (
    "aaabbAB  ee\u00e9 12 \n\t-.,'&/\"+\u2019\u2010\u2011\u2013\u00ad\u200b\u200d\u0301\u0307\u0130iI\u03a3\u03c3\u03c2"
    "\u00df\u65e0\u7ebf\u30b3\u30fc\u0e01\u0e34\u00bd\u00b2\u2764\ufe0f\U0001f600\U00020000\ud800\x00\U0010ffff"
)
TEXTS = st.text(alphabet=st.sampled_from(ALPHABET), max_size=30) | st.text(max_size=20)
UNSPACED = [
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3005, 0x3008), (0x3041, 0x3100), (0x31F0, 0x3200),
    (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFFA0), (0x1B000, 0x1B170), (0x20000, 0x40000),
]  # fmt: skip
APOSTROPHES, HYPHENS = "'\u2019\u02bc\uff07", "-\u2010\u2011"


def lowered(char: str) -> str:
    """Lower case of one character."""
    special = {"\u0130": "i", "\u03c2": "\u03c3"} | dict.fromkeys(APOSTROPHES, "'") | dict.fromkeys(HYPHENS, "-")
    return special.get(char, char.lower())


def is_ignored(char: str) -> bool:
    code = ord(char)
    if char == "\u200b":
        return False
    return unicodedata.category(char) == "Cf" or 0xFE00 <= code < 0xFE10 or 0xE0000 <= code < 0xE1000


def is_space(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) == "Cc" or char == "\u200b"


def shape(char: str) -> str:
    """One letter for what a character is before its neighbours are seen."""
    if char in APOSTROPHES:
        return "'"
    if char in HYPHENS:
        return "-"
    if char in ".,":
        return "."
    if is_space(char):
        return " "
    if unicodedata.category(char) in ("Mn", "Mc", "Me"):
        return "m"
    if char.isalnum():
        if any(first <= ord(char) < end for first, end in UNSPACED):
            return "s"
        return "l" if char.isalpha() else "d"
    return "?"


def visible(text: str, lower: bool) -> list[tuple[int, str]]:
    """Characters that count, with their places."""
    chars: list[tuple[int, str]] = []
    for place, char in enumerate(text):
        dot_of_i = lower and char == "\u0307" and chars and lowered(chars[-1][1]) == "i"
        if not is_ignored(char) and not dot_of_i:
            chars.append((place, char))
    return chars


def plain_units(text: str, lower: bool = True) -> list[tuple[int, int, str]]:
    """(first character, one past the last, normal form) of each word and symbol of a text."""
    chars = visible(text, lower)
    shapes = [shape(char) for _, char in chars]
    units: list[list[tuple[int, str]]] = []
    goes_on = False
    for (place, char), before, own, after in zip(chars, [" ", *shapes], shapes, [*shapes[1:], " "], strict=False):
        if own == "-" and before in "ldms" and after in "lds":
            own = " "
        elif own == "'" and before in "ldm" and after == "l":
            own = "l"
        elif own == "." and before == "d" and after == "d":
            own = "d"
        if own != " " and goes_on and own in "ldm" and not (own in "ld" and in_single(units[-1])):
            units[-1].append((place, char))
        elif own != " ":
            units.append([(place, char)])
        goes_on = own in "ldms"
    write = lowered if lower else (lambda char: lowered(char) if char in APOSTROPHES + HYPHENS else char)
    return [(unit[0][0], unit[-1][0] + 1, "".join(write(char) for _, char in unit)) for unit in units]


def in_single(unit: list[tuple[int, str]]) -> bool:
    """Whether a unit is one character of a script without spaces."""
    return len(unit) == 1 and shape(unit[0][1]) == "s"


def plain_words(text: str, lower: bool = True) -> list[str]:
    """Normal forms alone."""
    return [unit for _, _, unit in plain_units(text, lower)]
