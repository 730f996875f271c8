"""English stems for lexical search, by Porter's algorithm (M. F. Porter, An algorithm for suffix stripping, 1980).

A few rules instead of a package: "lamps" finds "lamp", and "batteries" finds "battery".
"""

from __future__ import annotations

import re
from functools import lru_cache

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip
_MEASURE = re.compile(r"V+C+")


def _shape(stem: str) -> str:
    """V for a vowel, C for a consonant; y is a vowel after a consonant."""
    shape = ""
    for i, letter in enumerate(stem):
        vowel = letter in "aeiou" or (letter == "y" and i > 0 and shape[-1] == "C")
        shape += "V" if vowel else "C"
    return shape


def _measure(stem: str) -> int:
    return len(_MEASURE.findall(_shape(stem)))


def _short_end(stem: str) -> bool:
    """Consonant, vowel, consonant at the end, the last one not w, x or y."""
    return _shape(stem)[-3:] == "CVC" and stem[-1] not in "wxy"


def _step_1(word: str) -> str:
    if word.endswith("s") and not word.endswith("ss"):
        word = word[:-2] if word.endswith(("sses", "ies")) else word[:-1]
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) > 0 else word
    else:
        for suffix in ("ed", "ing"):
            stem = word.removesuffix(suffix)
            if stem != word and "V" in _shape(stem):
                word = _mend(stem)
                break
    if word.endswith("y") and "V" in _shape(word[:-1]):
        word = word[:-1] + "i"
    return word


def _mend(stem: str) -> str:
    """What is left after -ed or -ing gets its e back, or loses a doubled consonant."""
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if len(stem) > 1 and stem[-1] == stem[-2] and _shape(stem)[-1] == "C" and stem[-1] not in "lsz":
        return stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _short_end(stem) else stem


def _replace(word: str, table: dict[str, str]) -> str:
    suffix = max((s for s in table if word.endswith(s)), key=len, default=None)
    if suffix is not None and _measure(word[: -len(suffix)]) > 0:
        return word[: -len(suffix)] + table[suffix]
    return word


def _step_4(word: str) -> str:
    suffix = max((s for s in _STEP_4 if word.endswith(s)), key=len, default=None)
    if suffix is None:
        return word
    stem = word[: -len(suffix)]
    if _measure(stem) > 1 and (suffix != "ion" or stem[-1] in "st"):
        return stem
    return word


def _step_5(word: str) -> str:
    if word.endswith("e"):
        stem = word[:-1]
        measure = _measure(stem)
        if measure > 1 or (measure == 1 and not _short_end(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


@lru_cache(maxsize=1 << 16)
def porter_stem(word: str) -> str:
    """The stem of an English word in lower case; words of other letters stay as they are.

    Args:
        word: one word.

    Example:
        >>> [porter_stem(word) for word in ("lamps", "batteries", "mounting", "adjustable", "relational", "16gb")]
        ['lamp', 'batteri', 'mount', 'adjust', 'relat', '16gb']
    """
    if len(word) <= 2 or not (word.isascii() and word.isalpha()):
        return word
    word = _step_1(word)
    word = _replace(_replace(word, _STEP_2), _STEP_3)
    return _step_5(_step_4(word))
