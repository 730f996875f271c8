"""Rules that tell text from what only looks like it: menus, error pages, spam, tables of signs.

One decision worth knowing: the limits are wide. Pages of shops are full of numbers, signs and short lines, and rules
made for prose (Gopher's, C4's) would throw out what this corpus is made of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_SIGNS = bytes(byte for byte in range(128) if not chr(byte).isalnum() and not chr(byte).isspace())
_DIGITS = b"0123456789"

BOILERPLATE = (
    "lorem ipsum",
    "javascript is disabled",
    "javascript must be enabled",
    "enable javascript",
    "please enable cookies",
    "checking your browser",
    "access denied",
    "404 not found",
    "page not found",
    "this page could not be found",
    "403 forbidden",
    "502 bad gateway",
    "internal server error",
    "under construction",
    "index of /",
    "this domain is for sale",
    "are you a robot",
    "verify you are human",
)
"""What a page without content says; counted in lower case."""


@dataclass(frozen=True)
class QualitySettings:
    """Limits of a document; each is a reason of its own.

    Attributes:
        enabled: apply them at all.
        min_words: shorter documents go ("short").
        max_words: longer ones go ("long"); 0 for no limit.
        min_word_length: mean characters of a word at least ("word_length").
        max_word_length: and at most; scripts without spaces are not measured.
        max_sign_share: signs among the characters that are not spaces ("signs").
        max_digit_share: digits among them ("digits").
        max_repeated_lines: share of the lines that stood in the text before ("repeated_lines").
        max_repeated_words: share of the commonest word, in documents of 50 words or more ("repeated_words").
        boilerplate: phrases of pages without content; a document short of 100 words goes with one of them
            ("boilerplate").

    Raises:
        ValueError: if a limit contradicts another one.
    """

    enabled: bool = True
    min_words: int = 5
    max_words: int = 0
    min_word_length: float = 2.0
    max_word_length: float = 15.0
    max_sign_share: float = 0.35
    max_digit_share: float = 0.5
    max_repeated_lines: float = 0.5
    max_repeated_words: float = 0.3
    boilerplate: tuple[str, ...] = field(default=BOILERPLATE)

    def __post_init__(self) -> None:
        if self.max_words and self.max_words < self.min_words:
            raise ValueError(f"max_words is {self.max_words}, below min_words {self.min_words}")
        if self.max_word_length < self.min_word_length:
            raise ValueError(f"max_word_length is {self.max_word_length}, below min_word_length {self.min_word_length}")


def quality_reasons(texts: Sequence[str], settings: QualitySettings | None = None) -> list[str]:
    """Why each text is no text; "" for one that is.

    Args:
        texts: documents.
        settings: the limits.

    Example:
        >>> quality_reasons(["A steel mug that holds half a litre.", "Page not found, sorry about that", "a b"])
        ['', 'boilerplate', 'short']
    """
    settings = settings or QualitySettings()
    if not settings.enabled:
        return [""] * len(texts)
    boilerplate = [re.escape(phrase.lower()) for phrase in settings.boilerplate]
    phrases = re.compile("|".join(boilerplate)) if boilerplate else None
    return [_reason(text, settings, phrases) for text in texts]


_SHORT_PAGE, _LONG_ENOUGH = 100, 50


def _reason(text: str, settings: QualitySettings, phrases: re.Pattern[str] | None) -> str:
    words = text.split()
    count = len(words)
    if not words or (count < settings.min_words and not _unspaced(text, settings.min_words)):
        return "short"
    if settings.max_words and count > settings.max_words:
        return "long"
    data = text.encode("utf-8", "replace")
    solid = sum(map(len, words))
    # Scripts of several bytes a character say nothing by the length of their words.
    if len(data) < 1.5 * len(text) and not settings.min_word_length <= solid / count <= settings.max_word_length:
        return "word_length"
    if len(data) - len(data.translate(None, _SIGNS)) > settings.max_sign_share * solid:
        return "signs"
    if len(data) - len(data.translate(None, _DIGITS)) > settings.max_digit_share * solid:
        return "digits"
    if "\n" in text and _repeated_lines(text) > settings.max_repeated_lines:
        return "repeated_lines"
    if count >= _LONG_ENOUGH and _commonest(words) > settings.max_repeated_words * count:
        return "repeated_words"
    if count < _SHORT_PAGE and phrases is not None and phrases.search(text.lower()):
        return "boilerplate"
    return ""


def _unspaced(text: str, words: int) -> bool:
    """Whether a text without spaces is long enough all the same: Chinese, Japanese, Thai."""
    return not text.isascii() and len(text.encode("utf-8", "replace")) >= 2 * len(text) and len(text) >= 2 * words


def _repeated_lines(text: str) -> float:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def _commonest(words: list[str]) -> int:
    seen: dict[str, int] = {}
    for word in words:
        seen[word] = seen.get(word, 0) + 1
    return max(seen.values())
