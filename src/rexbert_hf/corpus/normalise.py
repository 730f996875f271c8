r"""The one text normaliser of classifiers: what a model was trained on is what it is asked about.

One decision worth knowing: work is done on UTF-8 bytes, one table look-up a byte, because this is the hot path of
filtering. Letters and digits stay, `$ % # &` and the signs of currencies stay, everything else becomes a space. So no
text can hold a line break, `__label__` or `</s>`, each of which means something to fastText.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

CHARS_PER_WORD = 16
"""So many characters a word are read at most, whatever the words are: a line of 50 MB costs no more than a page."""

_KEPT = b"$%#&"
_APOSTROPHES = b"'`"
# Bytes of UTF-8 that are signs and spaces: Latin-1's but for pound and yen, general punctuation, letter-like signs to
# dingbats (trade mark, arrows, bullets, check marks), CJK punctuation, full-width ASCII signs, the byte order mark.
_SIGNS = re.compile(
    rb"\xc2[\x80-\xa2\xa4\xa6-\xbf]|\xc3[\x97\xb7]|\xe2(?:[\x80\x81\x84-\x9f][\x80-\xbf]|\x82[\x80-\x9f])"
    rb"|\xe3\x80[\x80-\x91\x94-\xbf]|\xef\xbc[\x80-\x8f\x9a-\xa0]|\xef\xbd[\x9b-\xa5]|\xef\xbb\xbf|\xef\xb8[\x80-\x8f]"
)
# Scripts without spaces between words: each character is a word.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def _table(digits: str) -> bytes:
    def image(byte: int) -> int:
        char = chr(byte)
        if byte >= 128 or byte in _KEPT or char.isalpha():
            return ord(char.lower()) if byte < 128 else byte
        if char.isdigit():
            return byte if digits == "keep" else ord("0")
        return 32

    return bytes(image(byte) for byte in range(256))


_TABLES = {digits: _table(digits) for digits in ("keep", "shape")}


@dataclass(frozen=True, slots=True)
class Normaliser:
    r"""Bring a text to the form that a classifier sees: lower case, words and numbers only, one line.

    Attributes:
        digits: "keep", or "shape": each digit becomes 0, so that "$12.99" and "$45.50" are the same words.
        max_words: of longer texts the first so many words count.

    Raises:
        ValueError: for `max_words` below 1 or an unknown `digits`.

    Example:
        >>> Normaliser()("Now only $12.99!\nDon't wait: __label__x")
        'now only $12 99  dont wait    label  x'
        >>> Normaliser(max_words=3)("iPhone 12 case, black (64GB)")
        'iphone 12 case'
    """

    digits: Literal["keep", "shape"] = "keep"
    max_words: int = 1000

    def __post_init__(self) -> None:
        if self.digits not in _TABLES:
            raise ValueError(f"digits is keep or shape, got {self.digits!r}")
        if self.max_words < 1:
            raise ValueError(f"max_words is at least 1, got {self.max_words}")

    def __call__(self, text: str) -> str:
        """Normalise one text; runs of spaces may stay, line breaks never do."""
        return normalise_texts([text], self)[0]

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for a model's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Normaliser:
        """From what `as_dict` gave.

        Args:
            settings: every key must be known: a model of a later version is refused rather than misread.

        Raises:
            ValueError: for an unknown key or a wrong value.
        """
        if unknown := sorted(set(settings) - {"digits", "max_words"}):
            raise ValueError(f"unknown setting {', '.join(unknown)} of a normaliser: made by a later version?")
        return cls(**settings)


def normalise_texts(texts: Sequence[str], normaliser: Normaliser | None = None) -> list[str]:
    """Normalise many texts.

    Args:
        texts: any text, lone surrogates included.
        normaliser: the settings; the default ones if None.

    Example:
        >>> normalise_texts(["A Mug.", "caf\u00e9\u00a0\u2014 \u20ac5"])
        ['a mug ', 'caf\u00e9   \u20ac5']
    """
    normaliser = normaliser or Normaliser()
    table, max_words = _TABLES[normaliser.digits], normaliser.max_words
    max_chars = CHARS_PER_WORD * max_words
    result = []
    for text in texts:
        if len(text) > max_chars:
            text = text[:max_chars]
        if text.isascii():
            plain = text.encode("ascii").translate(table, _APOSTROPHES).decode("ascii")
        else:
            plain = _plain(text, table)
        # Fewer characters than that cannot hold more words.
        if len(plain) >= 2 * max_words:
            words = plain.split(None, max_words)
            plain = " ".join(words[:max_words]) if len(words) > max_words else plain
        result.append(plain)
    return result


def _plain(text: str, table: bytes) -> str:
    text = text.replace("\u2019", "").lower()
    if _UNSPACED.search(text):
        text = " ".join(_UNSPACED.sub(r" \g<0> ", text).split())
    data = _SIGNS.sub(b" ", text.encode("utf-8", "replace"))
    return data.translate(table, _APOSTROPHES).decode("utf-8")
