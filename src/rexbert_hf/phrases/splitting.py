"""The steps of the word splitter over one array of characters: classes, context, borders, hashes.

Each step is a few passes of table look-ups over the whole chunk. What a word is stands in `words.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from rexbert_hf.phrases.characters import (
    DIGIT,
    DOT_ABOVE,
    HYPHEN,
    IGNORED,
    JOINED,
    LETTER,
    MARK,
    POINT,
    QUOTE,
    SINGLE,
    SYMBOL,
    code_tables,
    mixed,
)

_BASE = 0x9E3779B97F4A7C15  # 5 modulo 8: the order of such numbers modulo 2**64 is the longest possible.
_POWERS = 1 << 18


def code_points(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code points of the texts, a line feed after each, and their classes before context."""
    joined = "\n".join([*texts, ""])
    if joined.isascii():  # Python knows that without looking.
        raw = joined.encode("ascii")
        kind = np.frombuffer(bytearray(raw.translate(_ascii_classes())), dtype=np.uint8)
        return np.frombuffer(raw, dtype=np.uint8), kind
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return codes, np.take(code_tables().kind, codes)


@lru_cache(maxsize=1)
def _ascii_classes() -> bytes:
    return code_tables().kind[:256].tobytes()


def counting_places(codes: np.ndarray, kind: np.ndarray, lower: bool) -> np.ndarray:
    """Where the characters stand that count; dots above become marks, except after an i, whose dot they are."""
    keep = kind != IGNORED
    dots = np.flatnonzero(kind == DOT_ABOVE)
    kind[dots] = MARK
    if lower and len(dots):
        solid = keep.copy()
        solid[dots] = False
        before = np.maximum.accumulate(np.where(solid, np.arange(len(kind)), -1))[dots]
        after_i = (before >= 0) & (code_tables().lower[codes[before]] == ord("i"))
        keep[dots[after_i]] = False
    return np.flatnonzero(keep)


def apply_context(kind: np.ndarray) -> None:
    """Decide what apostrophes, hyphens, points and commas are, in place, by their neighbours."""
    unclear = np.flatnonzero(kind >= QUOTE)
    mark = kind[unclear]
    # The last character is a break, so there is a next one; before the first one stands, by wrapping round, a break.
    before, after = kind[unclear - 1], kind[unclear + 1]
    kind[unclear] = _CONTEXT[mark, before, after]


def _context_table() -> np.ndarray:
    """Class of an unclear character by its own class and its neighbours', `[13, 13, 13]`."""
    table = np.full((13, 13, 13), SYMBOL, dtype=np.uint8)
    for before in (LETTER, DIGIT, MARK, SINGLE):
        for after in (LETTER, DIGIT, SINGLE):
            table[HYPHEN, before, after] = JOINED
    for before in (LETTER, DIGIT, MARK):
        table[QUOTE, before, LETTER] = LETTER
    table[POINT, DIGIT, DIGIT] = DIGIT
    return table


_CONTEXT = _context_table()


def borders(kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First character and one past the last of each unit."""
    pair = np.empty(len(kind) + 1, dtype=np.uint8)
    pair[1:-1] = (kind[:-1] << 3) | kind[1:]
    if len(kind):
        pair[0], pair[-1] = kind[0], kind[-1] << 3
    else:
        pair[0] = 0
    found = np.frombuffer(pair.tobytes().translate(_BORDERS), dtype=np.uint8)
    # Indexes of true values of a bool array are found several times as fast as those of non-zero numbers.
    return np.flatnonzero((found & 1).view(bool)), np.flatnonzero((found >> 1).view(bool))


def _border_table() -> bytes:
    """By the classes of two neighbours: 1 where a unit begins between them, 2 where one ends, 3 for both."""
    table = bytearray(256)
    word = (LETTER, DIGIT, MARK)
    for before in range(8):
        for after in range(8):
            goes_on = (before in word and after in word) or (before == SINGLE and after == MARK)
            begins = after >= LETTER and not goes_on
            ends = before >= LETTER and not goes_on
            table[before << 3 | after] = begins + 2 * ends
    return bytes(table)


_BORDERS = _border_table()


def unit_hashes(codes: np.ndarray, first: np.ndarray, end: np.ndarray, lower: bool) -> np.ndarray:
    """Hash of each unit: a polynomial in a fixed odd number, modulo 2**64, from sums up to each character."""
    tables = code_tables()
    values = np.take(tables.hashes if lower else tables.exact, codes)
    size = 1 << max(_POWERS.bit_length(), len(codes).bit_length())
    powers, inverse = _powers(size)
    sums = np.empty(len(codes) + 1, dtype=np.uint64)
    sums[0] = 0
    np.multiply(values, powers[: len(codes)], out=values)
    np.cumsum(values, out=sums[1:])
    hashes = mixed((sums[end] - sums[first]) * inverse[first])
    hashes[hashes == 0] = 1
    return hashes


@lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse modulo 2**64, uint64 `[size]` each."""
    tables = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        powers = np.ones(size, dtype=np.uint64)
        known = 1
        while known < size:
            powers[known : 2 * known] = powers[:known] * np.uint64(pow(base, known, 1 << 64))
            known *= 2
        tables.append(powers)
    return tables[0], tables[1]
