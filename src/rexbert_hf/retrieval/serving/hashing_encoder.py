"""An encoder without weights: hashed words and character trigrams. What an index is tried with before there is a model.

Each word and each trigram of it stands for one fixed random direction; a text is their sum, words counting most. It
knows spelling and nothing else, needs numpy alone, and is the same on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

HASHING = "hashing"
"""The name that stands for this encoder where a model is asked for."""

_WORD = re.compile(r"\w+")
_TRIGRAM_WEIGHT = 0.5


class HashingEncoder:
    """Texts to vectors by their spelling.

    Args:
        dim: width of the vectors.

    Example:
        >>> encoder = HashingEncoder()
        >>> red, reds, blue = encoder.encode(["red lamp", "red lamps", "blue chair"])
        >>> bool(red @ reds > 0.5 > 0.2 > red @ blue)
        True
    """

    name = HASHING

    def __init__(self, dim: int = 256) -> None:
        self.dim = dim
        self.fingerprint = hashlib.sha256(f"hashing encoder 1, {dim} dimensions".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length one, float32 `[N, D]`; zero for a text without a word.

        Args:
            texts: any number.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in _WORD.findall(text.lower()):
                row += _word_vector(word, self.dim)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(length > 0, length, 1)


@lru_cache(maxsize=1 << 16)
def _word_vector(word: str, dim: int) -> np.ndarray:
    marked = f"<{word}>"
    vector = _direction(word, dim)
    for i in range(len(marked) - 2):
        vector = vector + _TRIGRAM_WEIGHT * _direction(marked[i : i + 3], dim)
    return vector


@lru_cache(maxsize=1 << 16)
def _direction(piece: str, dim: int) -> np.ndarray:
    """Signs drawn from the hash of a piece."""
    data = hashlib.shake_128(piece.encode("utf-8", "surrogatepass")).digest(-(-dim // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8))[:dim].astype(np.float32)
    return (2 * bits - 1) / np.float32(np.sqrt(dim))
