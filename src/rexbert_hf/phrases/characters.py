"""What each Unicode character is to the word splitter: its class, its lower case of one character, its hash value.

The tables are made on first use (a fraction of a second) from Python's own Unicode data and read by code point.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SPACE, JOINED, LETTER, DIGIT, MARK, SINGLE, SYMBOL, BREAK = range(8)
"""Classes after context: JOINED is a hyphen between two words, BREAK the end of a text."""
QUOTE, HYPHEN, POINT, IGNORED, DOT_ABOVE = range(8, 13)
"""Classes that context turns into the others: apostrophes, hyphens, points and commas, what is as if not there."""

_POINTS = 0x110000
# Thai and Lao; Burmese; Khmer; Kana; Kana extensions; Han; halfwidth Kana; Han of the upper planes.
_UNSPACED = (
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3005, 0x3008), (0x3041, 0x3100), (0x31F0, 0x3200),
    (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFFA0), (0x1B000, 0x1B170), (0x20000, 0x40000),
)  # fmt: skip


@dataclass(frozen=True)
class CodeTables:
    """Tables by code point.

    Attributes:
        kind: class of each character before context, uint8 `[0x110000]`.
        lower: lower case of one character each, apostrophes and hyphens in their ASCII form, uint32 `[0x110000]`.
        plain: the same without lower case.
        hashes: a random value for each lower-cased character, uint64 `[0x110000]`.
        exact: the same without lower case.
    """

    kind: np.ndarray
    lower: np.ndarray
    plain: np.ndarray
    hashes: np.ndarray
    exact: np.ndarray


@lru_cache(maxsize=1)
def code_tables() -> CodeTables:
    """The tables, made once in a process."""
    plain = np.arange(_POINTS, dtype=np.uint32)
    plain[[0x2019, 0x02BC, 0xFF07]] = ord("'")
    plain[[0x2010, 0x2011]] = ord("-")
    lower = plain.copy()
    for code in range(0x20000):  # No letter above it has case.
        low = chr(code).lower()
        if len(low) == 1 and lower[code] == code:
            lower[code] = ord(low)
    lower[0x0130] = ord("i")  # Its lower case is i and a dot above, which the splitter drops after an i.
    lower[0x03C2] = 0x03C3  # Final sigma: lower() writes it by its place in the word, which a table cannot.
    values = random_values(_POINTS)
    return CodeTables(_classes(), lower, plain, values[lower], values[plain])


def _classes() -> np.ndarray:
    letters = np.arange(_POINTS, dtype=np.uint32).view("<U1")
    kind = np.full(_POINTS, SYMBOL, dtype=np.uint8)
    kind[np.strings.isalnum(letters)] = DIGIT
    kind[np.strings.isalpha(letters)] = LETTER
    for first, end in _UNSPACED:
        part = kind[first:end]
        part[(part == LETTER) | (part == DIGIT)] = SINGLE
    for code in np.flatnonzero(kind == SYMBOL)[:0x30000].tolist():
        kind[code] = _class_of_other(code)
    kind[0xE0000:0xE1000] = IGNORED  # Tags and variation selectors.
    kind[[ord("'"), 0x2019, 0x02BC, 0xFF07]] = QUOTE
    kind[[ord("-"), 0x2010, 0x2011]] = HYPHEN
    kind[[ord("."), ord(",")]] = POINT
    kind[0x200B] = SPACE
    kind[0xFE00:0xFE10] = IGNORED
    kind[0x0307] = DOT_ABOVE
    return kind


def _class_of_other(code: int) -> int:
    """Class of a character that is neither letter nor digit."""
    category = unicodedata.category(chr(code))
    if category in ("Mn", "Mc", "Me"):
        return MARK
    if category == "Cf":
        return IGNORED
    return SPACE if chr(code).isspace() or category == "Cc" else SYMBOL


def random_values(count: int) -> np.ndarray:
    """The first values of a fixed 64-bit generator (splitmix64), uint64 `[count]`.

    Args:
        count: how many.

    >>> hex(random_values(1)[0])
    '0xe220a8397b1dcdaf'
    """
    with np.errstate(over="ignore"):
        state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return mixed(state)


def mixed(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values over all bits, one to one (the finaliser of splitmix64).

    Args:
        values: uint64, any shape.

    >>> mixed(np.array([0], dtype=np.uint64))
    array([0], dtype=uint64)
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)
