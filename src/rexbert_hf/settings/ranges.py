"""Ranges of numbers in settings, for the `__post_init__` of the classes: what is out of one is refused before any work.

None passes: it says that there is no number. Infinity and what is no number never pass.
"""

from __future__ import annotations

import math
from typing import Any

MOST_SEED = 2**32 - 1
"""Largest seed that random, NumPy and torch all take."""


def check_least(record: Any, **least: float) -> None:
    """Refuse numbers of a record that are below what is given for them.

    Args:
        record: an instance of a settings class.
        **least: the least that each of its fields may be.

    Raises:
        ValueError: for the first number that is out of range.

    >>> from types import SimpleNamespace
    >>> check_least(SimpleNamespace(steps=0, limit=None), steps=1, limit=1)
    Traceback (most recent call last):
    ValueError: steps must be at least 1; got 0
    """
    for name, low in least.items():
        value = getattr(record, name)
        if value is not None and not low <= value < math.inf:
            raise ValueError(f"{name} must be at least {low:g}{_finite(value)}; got {value}")


def check_vocab_size(size: int, name: str = "vocab_size") -> None:
    """Refuse a size that no tokenizer is trained to.

    Args:
        size: entries in all.
        name: of the setting.

    Raises:
        ValueError: unless it is a multiple of 64, at least 384.

    >>> check_vocab_size(1000, "tokenizer.vocab_size")
    Traceback (most recent call last):
    ValueError: tokenizer.vocab_size must be a multiple of 64 and at least 384; got 1000
    """
    if size % 64 or size < 384:
        raise ValueError(f"{name} must be a multiple of 64 and at least 384; got {size}")


def check_above_zero(record: Any, *names: str) -> None:
    """Refuse numbers of a record that are not above zero.

    Args:
        record: an instance of a settings class.
        *names: its fields.

    Raises:
        ValueError: for the first number that is out of range.

    >>> from types import SimpleNamespace
    >>> check_above_zero(SimpleNamespace(rate=0.0), "rate")
    Traceback (most recent call last):
    ValueError: rate must be above 0; got 0.0
    """
    for name in names:
        value = getattr(record, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0{_finite(value)}; got {value}")


def check_share(record: Any, *names: str) -> None:
    """Refuse numbers of a record that do not lie in [0, 1].

    Args:
        record: an instance of a settings class.
        *names: its fields.

    Raises:
        ValueError: for the first number that is out of range.

    >>> from types import SimpleNamespace
    >>> check_share(SimpleNamespace(least=1.5), "least")
    Traceback (most recent call last):
    ValueError: least must lie in [0, 1]; got 1.5
    """
    for name in names:
        value = getattr(record, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1]; got {value}")


def _finite(value: float) -> str:
    return " and finite" if value == math.inf else ""
