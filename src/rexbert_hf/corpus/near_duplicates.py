"""MinHash signatures of texts in numpy, many texts at a time.

Two texts are near duplicates if the sets of their runs of words (shingles) overlap by a Jaccard share, and if their
numbers are the same. The second part is what a catalogue needs: in a page of three hundred words "iPhone 12 case" and
"iPhone 13 case" differ in five shingles, far less than any threshold, and are different products all the same.

One decision worth knowing: words are hashed by differences of one running polynomial sum over the bytes of a whole
batch, so no Python code runs for a word or a text. Signatures depend on the text and the settings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .normalise import Normaliser, normalise_texts

_BATCH_CHARS = 1 << 19
_NEWLINE, _SPACE = 10, 32
_MOST_WORDS = 1 << 20


@dataclass(frozen=True)
class NearDuplicateSettings:
    """What near duplicates are, and how surely they are found.

    A pair of similarity s shares one of the bands with probability `1 - (1 - s**rows)**bands`: 0.998 at 0.8, 0.73 at
    0.6 for the defaults. Pairs that do are compared by all `bands * rows` values, which tells s to about 0.04.

    Attributes:
        enabled: look for near duplicates at all.
        threshold: Jaccard share of shingles from which on texts are near duplicates.
        shingle_words: words of a shingle; shorter texts are one shingle.
        numbers: "equal" tells texts apart whose sets of words with a digit differ (prices, sizes, model numbers);
            "shingles" treats numbers as any other word.
        bands: groups of values of which one must agree.
        rows: values of a band.
        seed: of the hash functions.

    Raises:
        ValueError: for a threshold outside (0, 1] or a count below 1.
    """

    enabled: bool = True
    threshold: float = 0.8
    shingle_words: int = 5
    numbers: Literal["equal", "shingles"] = "equal"
    bands: int = 20
    rows: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is a share in (0, 1], got {self.threshold}")
        if min(self.shingle_words, self.bands, self.rows) < 1:
            raise ValueError("shingle_words, bands and rows are at least 1")


@dataclass(frozen=True)
class Signatures:
    """Of N texts.

    Attributes:
        keys: uint64 `[bands, N]`; texts that share one are candidates.
        values: uint8 `[N, bands * rows]`, the last byte of each minimum.
    """

    keys: np.ndarray
    values: np.ndarray


def minhash(texts: Sequence[str], settings: NearDuplicateSettings | None = None) -> Signatures:
    """Sign texts.

    Args:
        texts: as they are. Those without a word share a key with no other text but each other.
        settings: what counts.

    Example:
        >>> red = "a red steel mug for coffee and tea with a lid"
        >>> signed = minhash([red, red + "!", red.replace("red", "blue") + " 2"])
        >>> bool((signed.keys[:, 0] == signed.keys[:, 1]).all()), bool((signed.keys[:, 0] == signed.keys[:, 2]).any())
        (True, False)
    """
    settings = settings or NearDuplicateSettings()
    lines = normalise_texts(texts, Normaliser("keep", _MOST_WORDS))
    parts = [_sign(batch, settings) for batch in _batches(lines)]
    if not parts:
        size = settings.bands * settings.rows
        return Signatures(np.zeros((settings.bands, 0), np.uint64), np.zeros((0, size), np.uint8))
    return Signatures(np.concatenate([k for k, _ in parts], axis=1), np.concatenate([v for _, v in parts]))


def joined_signatures(parts: Sequence[Signatures]) -> Signatures:
    """Signatures of several lots of texts as those of one.

    Args:
        parts: at least one, made with the same settings.
    """
    return Signatures(
        np.concatenate([part.keys for part in parts], axis=1), np.concatenate([part.values for part in parts])
    )


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Estimated Jaccard shares of pairs of signatures, from their values `[P, H]`; a byte agrees by chance in 256."""
    agreeing = (first == second).mean(axis=1)
    return np.clip((agreeing - 1 / 256) / (1 - 1 / 256), 0.0, 1.0)


def _batches(lines: list[str]) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for line in lines:
        if room < len(line) or not batches:
            batches.append([])
            room = _BATCH_CHARS
        batches[-1].append(line)
        room -= len(line)
    return batches


def _sign(lines: list[str], settings: NearDuplicateSettings) -> tuple[np.ndarray, np.ndarray]:
    words, document, with_digit = _hashed_words(lines)
    shingles, owner = _shingles(words, document, settings)
    size = settings.bands * settings.rows
    minima = np.full((size, len(lines)), 0xFFFFFFFF, dtype=np.uint32)
    if len(shingles):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        rng = np.random.default_rng([settings.seed, 1])
        factors = rng.integers(0, 1 << 32, size, dtype=np.uint32) | np.uint32(1)
        terms = rng.integers(0, 1 << 32, size, dtype=np.uint32)
        narrow = (shingles >> np.uint64(32)).astype(np.uint32)
        image, present = np.empty_like(narrow), owner[first]
        for i in range(size):
            np.multiply(narrow, factors[i], out=image)
            np.add(image, terms[i], out=image)
            minima[i, present] = np.minimum.reduceat(image, first)
    salt = np.zeros(len(lines), dtype=np.uint64)
    if settings.numbers == "equal":
        salt = _number_sets(words[with_digit], document[with_digit], len(lines))
    keys = np.empty((settings.bands, len(lines)), dtype=np.uint64)
    for band in range(settings.bands):
        key = salt + np.uint64(band)
        for row in minima[band * settings.rows : (band + 1) * settings.rows]:
            key = _mix(key ^ row)
        keys[band] = key
    return keys, np.ascontiguousarray(minima.T.astype(np.uint8))


def _hashed_words(lines: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 64-bit hash of each word, the text it is in, and whether it holds a digit."""
    data = np.frombuffer(("\n".join(lines) + "\n").encode("utf-8"), dtype=np.uint8)
    powers, inverses, table = _polynomial(len(data))
    edges = np.diff((data > _SPACE).astype(np.int8), prepend=0, append=0)
    start, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(table[data] * powers, out=sums[1:])
    words = _mix((sums[end] - sums[start]) * inverses[start])
    breaks = np.flatnonzero(data == _NEWLINE)
    document = np.searchsorted(breaks, start)
    digits = np.zeros(len(data) + 1, dtype=np.int32)
    np.cumsum((data - np.uint8(48)) < 10, out=digits[1:])
    return words, document, digits[end] > digits[start]


_CACHE: dict[str, np.ndarray] = {}


def _polynomial(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Powers of an odd number and of its inverse modulo 2**64, and a random number for each byte."""
    if "table" not in _CACHE:
        _CACHE["table"] = np.random.default_rng(2).integers(0, 1 << 64, 256, dtype=np.uint64)
    if len(_CACHE.get("powers", ())) < size:
        length = max(size, _BATCH_CHARS + (1 << 16))
        base = 0x9E3779B97F4A7C15
        for name, factor in (("powers", base), ("inverses", pow(base, -1, 1 << 64))):
            steps = np.full(length, factor, dtype=np.uint64)
            steps[0] = 1
            _CACHE[name] = np.cumprod(steps)
    return _CACHE["powers"][:size], _CACHE["inverses"][:size], _CACHE["table"]


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread 64 bits: the finish of splitmix64."""
    values = values.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _shingles(
    words: np.ndarray, document: np.ndarray, settings: NearDuplicateSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the shingles of all texts, and the text of each."""
    size, count = settings.shingle_words, len(words)
    factors = np.random.default_rng(3).integers(0, 1 << 64, size, dtype=np.uint64) | np.uint64(1)
    sums = np.zeros(count, dtype=np.uint64)
    whole = np.ones(count, dtype=bool)
    for j in range(size):
        inside = np.zeros(count, dtype=bool)
        inside[: max(0, count - j)] = document[j:] == document[: max(0, count - j)]
        sums[inside] += words[j:][inside[: max(0, count - j)]] * factors[j]
        whole &= inside
    # A text of fewer words than a shingle is one shingle: the one at its first word.
    counts = np.bincount(document, minlength=1) if count else np.zeros(1, dtype=np.int64)
    first = np.diff(document, prepend=-1) > 0
    whole |= first & (counts[document] < size)
    return _mix(sums[whole]), document[whole]


def _number_sets(words: np.ndarray, document: np.ndarray, count: int) -> np.ndarray:
    """One number for the set of the words with a digit of each text."""
    order = np.lexsort((words, document))
    words, document = words[order], document[order]
    new = np.ones(len(words), dtype=bool)
    new[1:] = (words[1:] != words[:-1]) | (document[1:] != document[:-1])
    sums = np.zeros(count, dtype=np.uint64)
    np.add.at(sums, document[new], _mix(words[new] + np.uint64(1)))
    return _mix(sums)
