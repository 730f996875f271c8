"""Robustness slices: the same texts with typos, in another case or word order, with units written otherwise.

What happens to a text depends on (kind, seed, the text) alone, so slices are equal in every run, order and process.
`ALIGNED` kinds keep the number of white-space words, for tasks with labels on words. Rare brands are no perturbation
but a part of the texts: `names_rare_brand` says which.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

KINDS = ("typos", "casing", "word_order", "units")
"""Perturbations, in the order of reports."""

ALIGNED = ("typos", "casing")
"""Perturbations that keep the words of a text where they are."""

RARE_BRANDS = "rare_brands"
"""Name of the slice of texts that mention a rare brand."""

TYPO_RATE = 0.3
"""Share of the words of four letters or more that get one typo; a text that has such a word gets at least one."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    letter: "".join(row[j] for j in (i - 1, i + 1) if 0 <= j < len(row))
    for row in _ROWS
    for i, letter in enumerate(row)
}
_UNITS = (
    *("gb", "tb", "mb", "kb", "ghz", "mhz", "hz", "mah", "ah", "wh", "kwh", "watt", "watts", "w", "v", "volt", "volts"),
    *("kg", "g", "mg", "lb", "lbs", "oz", "ml", "cl", "l", "gal", "gallon", "gallons", "qt", "quart"),
    *(
        "mm",
        "cm",
        "m",
        "km",
        "in",
        "inch",
        "inches",
        "ft",
        "foot",
        "feet",
        "yd",
        "sq",
        "mp",
        "dpi",
        "rpm",
        "btu",
        "psi",
    ),
    *(
        "psi",
        "hp",
        "cu",
        "pack",
        "pc",
        "pcs",
        "piece",
        "ct",
        "amp",
        "amps",
        "bit",
        "fps",
        "db",
        "lumens",
        "lumen",
        "deg",
    ),
)
# "3 in 1" is no measure.
_UNIT = "|".join([*sorted(_UNITS, key=len, reverse=True), r"in(?!\s\d)"])
_MEASURE = re.compile(rf"(?<![\w.])(\d+(?:[.,/]\d+)*)([ -]?)({_UNIT})(?![\w])", re.IGNORECASE)


def perturb(texts: Sequence[str], kind: str, seed: int = 0) -> list[str]:
    """Change each text in one way; a text that cannot be changed so stays as it is.

    Args:
        texts: any.
        kind: "typos" (a swap, drop, repeat or neighbouring key), "casing" (upper, lower, title or swapped case),
            "word_order" (words shuffled), "units" ("16 GB" for "16gb" and the other way round).
        seed: of what is drawn.

    Raises:
        ValueError: for another kind.

    Example:
        >>> perturb(["16 GB laptop", "a 5gal bucket"], "units")
        ['16GB laptop', 'a 5 gal bucket']
    """
    if kind not in _CHANGES:
        raise ValueError(f"no perturbation {kind!r}; there are: {', '.join(KINDS)}")
    change = _CHANGES[kind]
    return [change(text, _generator(kind, seed, text)) for text in texts]


def perturb_words(words: Sequence[str], kind: str, seed: int = 0) -> list[str]:
    """The same for a text that is split already, with one word for each word.

    Args:
        words: of one text.
        kind: one of `ALIGNED`.
        seed: of what is drawn.

    Raises:
        ValueError: for a kind that moves words.

    Example:
        >>> len(perturb_words(["great", "battery life"], "typos"))
        2
    """
    if kind not in ALIGNED:
        raise ValueError(f"{kind!r} does not keep words in their places; use one of {', '.join(ALIGNED)}")
    rng = _generator(kind, seed, "\0".join(words))
    if kind == "casing":
        case = rng.choice(_CASES)
        changed = [case(word) for word in words]
        return changed if changed != list(words) else [word.upper() for word in words]
    return _with_typos(list(words), rng)


def names_rare_brand(texts: Sequence[str], titles: Sequence[str], share: float = 0.5) -> list[bool]:
    """Which texts mention a brand that few products have.

    Product titles begin with their brand as a rule, so a brand is a title's first word, if at least two titles begin
    with it. Rare are the brands that, least frequent first, hold this share of all titles with a brand.

    Args:
        texts: queries, say.
        titles: of the catalogue.
        share: of the titles.

    Example:
        >>> titles = ["Acme saw", "Acme drill", "Acme nail", "Bolt drill", "Bolt nail", "Zed plate"]
        >>> names_rare_brand(["bolt drill", "acme drill", "drill"], titles)
        [True, False, False]
    """
    first = Counter(words[0] for title in titles if (words := _plain_words(title)))
    inside = Counter(word for title in titles for word in set(_plain_words(title)[1:]))
    # A word that stands inside titles more often than it begins them is no brand ("black", "steel").
    brands = {word: count for word, count in first.items() if count > 1 and word.isalpha() and inside[word] < count}
    left = share * sum(brands.values())
    rare: set[str] = set()
    for brand, count in sorted(brands.items(), key=lambda item: (item[1], item[0])):
        left -= count
        if left < 0:
            break
        rare.add(brand)
    return [any(word in rare for word in _plain_words(text)) for text in texts]


def _plain_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _generator(kind: str, seed: int, text: str) -> random.Random:
    digest = hashlib.sha1(f"{kind}\0{seed}\0{text}".encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return random.Random(digest.digest())


def _typos(text: str, rng: random.Random) -> str:
    parts = re.split(r"(\s+)", text)
    return "".join(_with_typos(parts, rng))


def _with_typos(words: list[str], rng: random.Random) -> list[str]:
    long = [i for i, word in enumerate(words) if sum(map(str.isalpha, word)) >= 4]
    if not long:
        return words
    hit = [i for i in long if rng.random() < TYPO_RATE] or [rng.choice(long)]
    return [_mistype(word, rng) if i in hit else word for i, word in enumerate(words)]


def _mistype(word: str, rng: random.Random) -> str:
    """One slip at a letter that is not the first."""
    places = [i for i, letter in enumerate(word) if letter.isalpha()][1:]
    for _ in range(8):  # a swap of two equal letters changes nothing: draw again
        i = rng.choice(places)
        slip = rng.randrange(4)
        if slip == 0:
            changed = word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]
        elif slip == 1:
            changed = word[:i] + word[i + 1 :]
        elif slip == 2:
            changed = word[:i] + word[i] + word[i:]
        else:
            near = _NEIGHBOURS.get(word[i].lower(), word[i])
            changed = word[:i] + rng.choice(near) + word[i + 1 :]
        if changed != word:
            return changed
    return word


_CASES: tuple[Callable[[str], str], ...] = (str.upper, str.lower, str.title, str.swapcase)


def _casing(text: str, rng: random.Random) -> str:
    changed = rng.choice(_CASES)(text)
    return changed if changed != text else text.upper()


def _word_order(text: str, rng: random.Random) -> str:
    words = text.split()
    if len(set(words)) < 2:
        return text
    shuffled = words[:]
    while shuffled == words:
        rng.shuffle(shuffled)
    return " ".join(shuffled)


def _units(text: str, rng: random.Random) -> str:
    """Draws nothing: a measure has two common ways to be written."""
    return _MEASURE.sub(lambda match: f"{match[1]}{'' if match[2] else ' '}{match[3]}", text)


_CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "typos": _typos,
    "casing": _casing,
    "word_order": _word_order,
    "units": _units,
}
