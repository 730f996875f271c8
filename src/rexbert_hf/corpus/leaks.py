"""Held-out texts that nearly repeat a training text: what measures memory instead of learning.

One decision worth knowing: numbers count as any other word here, unlike among the documents of a corpus. Two pages that
differ in a price are two pages for training, and one and the same for a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .near_duplicates import NearDuplicateSettings, Signatures, joined_signatures, minhash, similarity

MOST_CHARS = 1 << 32
"""So much training text is looked through, some minutes' worth; what follows in a larger corpus is not."""
_SETTINGS = NearDuplicateSettings(numbers="shingles")
_MOST_TRIED = 64
"""Held-out texts that share a key are compared with a training text up to this one: they repeat each other."""


def signatures_of(texts: Iterable[Sequence[str]]) -> Signatures:
    """Sign held-out texts for `copies_among`; what stays in memory is some 300 bytes a text.

    Args:
        texts: batches of them.
    """
    signed = [minhash(batch, _SETTINGS) for batch in texts] or [minhash([], _SETTINGS)]
    return joined_signatures(signed)


def near_copies(held_out: Sequence[str], training: Iterable[Sequence[str]], most_chars: int = MOST_CHARS) -> np.ndarray:
    """Tell which held-out texts are near duplicates of a training text.

    Args:
        held_out: texts, in memory; their signatures take some 300 bytes each.
        training: batches of texts, each looked at once.
        most_chars: of training text that is looked through.

    Returns:
        bool `[H]`.

    Example:
        >>> kettle = "a steel kettle with a handle of wood that holds two litres, safe to wash, for gas and induction"
        >>> near_copies([kettle + " 1041", "a red mug"], [["a blue mug", kettle + " 1042"]]).tolist()
        [True, False]
    """
    return copies_among(signatures_of([held_out]), training, most_chars)


def copies_among(signed: Signatures, training: Iterable[Sequence[str]], most_chars: int = MOST_CHARS) -> np.ndarray:
    """As `near_copies`, of texts that are signed.

    Args:
        signed: by `signatures_of`.
        training: batches of texts, each looked at once.
        most_chars: of training text that is looked through.

    Returns:
        bool `[H]`.
    """
    found = np.zeros(len(signed.values), dtype=bool)
    if not len(found):
        return found
    orders = np.argsort(signed.keys, axis=1, kind="stable")
    tables = np.take_along_axis(signed.keys, orders, axis=1)
    for texts in training:
        batch = minhash(texts, _SETTINGS)
        for keys, table, order in zip(batch.keys, tables, orders, strict=True):
            place, end = np.searchsorted(table, keys), np.searchsorted(table, keys, side="right")
            for _ in range(_MOST_TRIED):
                pairs = np.flatnonzero(place < end)
                if not len(pairs):
                    break
                rows = order[place[pairs]]
                pairs, rows = pairs[~found[rows]], rows[~found[rows]]
                found[rows[similarity(signed.values[rows], batch.values[pairs]) >= _SETTINGS.threshold]] = True
                place += 1
        most_chars -= sum(map(len, texts))
        if most_chars <= 0 or found.all():
            break
    return found
