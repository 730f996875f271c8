"""Splitting texts into words: one vectorised splitter for mining and for matching, so that both see the same words.

What a word is, decided once:

- a run of letters, digits and combining marks (`16gb`, `usb`), in lower case unless asked otherwise;
- with apostrophes inside (`levi's`, also as U+2019), and points and commas between digits (`3.5`, `1,000`);
- a hyphen between two words separates them as a space does, so `stainless-steel` is `stainless steel`; the second
  word has `hyphen` set;
- in scripts without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer) each character with its marks is a word.

Every other visible character is a symbol: a unit of its own, which a phrase may hold (`black & decker`) and which
keeps phrases from running over the end of a sentence. White space of any kind separates. Format characters (soft
hyphens, joiners, variation selectors) are as if they were not there. After each text stands one break, which no phrase
holds. Splitting the units joined by spaces gives the same units again.

Use: `for first, words in split_chunks(texts): ...` over many texts, `split_words(texts)` for few, `normalise(phrase)`
for the canonical form of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rexbert_hf.phrases.characters import BREAK, IGNORED, JOINED, SINGLE, code_tables
from rexbert_hf.phrases.splitting import apply_context, borders, code_points, counting_places, unit_hashes

KIND_WORD, KIND_SYMBOL, KIND_BREAK = 0, 1, 2
"""Values of `Words.kind`."""

CHUNK_CHARS = 1 << 18


@dataclass(slots=True)
class Words:
    """Units of a chunk of texts, in order: U units of T texts, T of them breaks.

    Attributes:
        start: first character of each unit, counted in its text, int32 `[U]`.
        end: one past its last character, int32 `[U]`; a break stands at the end of its text and is empty.
        kind: uint8 `[U]`: `KIND_WORD`, `KIND_SYMBOL` or `KIND_BREAK`.
        hyphen: whether a hyphen joins the unit to the one before it, bool `[U]`.
        hashes: 64-bit hashes of the normalised units, uint64 `[U]`; 0 for breaks and for nothing else. Equal units have
            equal hashes on every machine; two different words collide with a probability of about 2**-58.
        offsets: units of text t are `offsets[t]` to `offsets[t + 1] - 1`, the last being its break; int64 `[T + 1]`.
        codes: code points of the chunk as they are, without those that are as if not there.
        first: where in `codes` a unit begins, int64 `[U]`.
        length: how many code points it has there, int64 `[U]`.
        lower: whether units are compared in lower case.
    """

    start: np.ndarray
    end: np.ndarray
    kind: np.ndarray
    hyphen: np.ndarray
    hashes: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray
    first: np.ndarray
    length: np.ndarray
    lower: bool = True

    def __len__(self) -> int:
        return len(self.start)

    @property
    def capital(self) -> np.ndarray:
        """Whether a unit begins with an upper-case letter, bool `[U]`."""
        first = self.codes[np.minimum(self.first, len(self.codes) - 1)]
        return (code_tables().lower[first] != first) & (self.kind == KIND_WORD)

    def normal(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised code points of some units, one after the other, and their offsets.

        Args:
            units: indexes, `[N]`.

        Returns:
            uint32 code points, and int64 offsets `[N + 1]`.
        """
        places, offsets = ranges(self.first[units], self.length[units])
        return self.normal_codes(places), offsets

    def normal_codes(self, places: np.ndarray) -> np.ndarray:
        """Normalised code points at some places of `codes`, uint32.

        Args:
            places: indexes.
        """
        tables = code_tables()
        return np.take(tables.lower if self.lower else tables.plain, self.codes[places])

    def text(self, unit: int) -> str:
        """The normalised form of one unit; empty for a break."""
        return decoded(self.normal(np.array([unit]))[0])


def decoded(codes: np.ndarray) -> str:
    """Code points as text.

    Args:
        codes: of any integer type.

    >>> decoded(np.array([116, 118]))
    'tv'
    """
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def ranges(first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All indexes of some ranges, one range after the other, and where each begins.

    Args:
        first: first index of each range, `[N]`.
        length: its length, `[N]`.

    >>> [part.tolist() for part in ranges(np.array([5, 0]), np.array([2, 3]))]
    [[5, 6, 0, 1, 2], [0, 2, 5]]
    """
    offsets = np.zeros(len(first) + 1, dtype=np.int64)
    np.cumsum(length, out=offsets[1:])
    return np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], length), offsets


def normalise(phrase: str, *, lower: bool = True) -> str:
    """The canonical form of a phrase: its words and symbols with one space between.

    Args:
        phrase: any text.
        lower: whether case does not matter.

    >>> normalise("Black&Decker Stainless-Steel  3.5 mm")
    'black & decker stainless steel 3.5 mm'
    """
    return normalise_all([phrase], lower=lower)[0]


def normalise_all(phrases: Sequence[str], *, lower: bool = True) -> list[str]:
    """The canonical forms of many phrases, about a hundred times as fast as one after the other.

    Args:
        phrases: any texts.
        lower: whether case does not matter.

    >>> normalise_all(["Tea-Pot", "", "AT&T"])
    ['tea pot', '', 'at & t']
    """
    found: list[str] = []
    for _, words in split_chunks(phrases, lower=lower):
        codes, _ = words.normal(np.arange(len(words)))
        is_break = words.kind == KIND_BREAK
        # A space after each unit but a text's last, a line feed after each text: no unit holds either.
        followed = is_break | ~np.append(is_break[1:], True)
        begin = np.cumsum(words.length + followed) - words.length - followed
        out = np.full(int((words.length + followed).sum()), ord(" "), dtype=np.uint32)
        out[ranges(begin, words.length)[0]] = codes
        out[begin[is_break]] = ord("\n")
        found += decoded(out).split("\n")[:-1]
    return found


def split_chunks(
    texts: Sequence[str], *, lower: bool = True, chunk_chars: int = CHUNK_CHARS
) -> Iterator[tuple[int, Words]]:
    """Split many texts, in chunks that stay in the processor's cache.

    Args:
        texts: any number; a text is never cut.
        lower: whether case does not matter.
        chunk_chars: characters of a chunk, unless one text has more.

    Raises:
        TypeError: if a text is not a `str`.

    Yields:
        The index of the chunk's first text, and its units.

    >>> [(first, len(words)) for first, words in split_chunks(["red lamp", "a", "b"], chunk_chars=5)]
    [(0, 3), (1, 4)]
    """
    first = size = 0
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {index} is {type(text).__name__}, not str")
        if size and size + len(text) > chunk_chars:
            yield first, split_words(texts[first:index], lower=lower)
            first, size = index, 0
        size += len(text) + 1
    if first < len(texts):
        yield first, split_words(texts[first:], lower=lower)


def split_words(texts: Sequence[str], *, lower: bool = True) -> Words:
    """Split texts into words, symbols and breaks, all at once.

    It takes some 60 bytes a character while it runs: see `split_chunks` for many texts.

    Args:
        texts: texts; lone surrogates are symbols.
        lower: whether case does not matter.

    Example:
        >>> words = split_words(["Levi's T-shirt, 3.5 oz", "AT&T"])
        >>> [words.text(unit) for unit in range(len(words))]
        ["levi's", 't', 'shirt', ',', '3.5', 'oz', '', 'at', '&', 't', '']
        >>> words.offsets.tolist(), words.start[:4].tolist(), words.hyphen[:4].tolist()
        ([0, 7, 11], [0, 7, 9, 14], [False, False, True, False])
    """
    text_first = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1, out=text_first[1:])
    codes, kind = code_points(texts)
    kind[text_first[1:] - 1] = BREAK
    places = None
    if len(kind) and kind.max() >= IGNORED:
        places = counting_places(codes, kind, lower)
        codes, kind = codes[places], kind[places]
    apply_context(kind)
    first, end = borders(kind)
    unit_kind = np.maximum(kind[first], SINGLE) - SINGLE
    hyphen = (kind[first - 1] == JOINED) & (first > 0)
    hashes = unit_hashes(codes, first, end, lower)
    hashes[unit_kind == KIND_BREAK] = 0
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    offsets[1:] = np.flatnonzero(unit_kind == KIND_BREAK) + 1
    start, stop = (first, end) if places is None else (places[first], places[end - 1] + 1)
    stop = stop - (unit_kind == KIND_BREAK)
    shift = np.repeat(text_first[:-1], np.diff(offsets))
    start, stop = (start - shift).astype(np.int32), (stop - shift).astype(np.int32)
    length = end - first
    length[unit_kind == KIND_BREAK] = 0
    return Words(start, stop, unit_kind, hyphen, hashes, offsets, codes, first, length, lower)
