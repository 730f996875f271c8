"""Pairs of offers from clusters: two offers of one product, and two of products with like titles.

A random pair of offers shares no word, and telling it apart shows nothing. So the partner of a negative pair is, among
the offers of the same category, the one of another product that shares the most information: words weighted by how
rare they are.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEGATIVES = 3
"""Negative pairs for each positive one, about the share of the WDC benchmark."""
_COMMON = 200
"""A word in more titles than this finds no partners: it would make every pair a candidate."""


class Offer(NamedTuple):
    """A title, the product that it is, and where it is filed.

    Attributes:
        title: of the offer.
        cluster: of the offers of one product.
        category: partners of negative pairs come from the same one.
    """

    title: str
    cluster: str
    category: str = ""


def make_pairs(offers: Sequence[Offer], negatives: int = NEGATIVES) -> list[tuple[str, str, int]]:
    """One positive pair for each cluster of two titles or more, and the most alike negatives for its first offer.

    Args:
        offers: of one split.
        negatives: for each positive.

    Example:
        >>> shop = [Offer("red tin mug", "1"), Offer("mug tin red", "1"), Offer("blue tin mug", "2")]
        >>> make_pairs(shop)
        [('red tin mug', 'mug tin red', 1), ('red tin mug', 'blue tin mug', 0)]
    """
    titles: dict[tuple[str, str], list[str]] = defaultdict(list)
    for offer in offers:
        known = titles[offer.category, offer.cluster]
        if offer.title not in known:
            known.append(offer.title)
    words = [(key, title, frozenset(re.findall(r"\w+", title.lower()))) for key, own in titles.items() for title in own]
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, (key, _, own_words) in enumerate(words):
        for word in sorted(own_words):
            holders[key[0], word].append(number)
    pairs, first = [], 0
    for key, own in titles.items():
        if len(own) > 1:
            pairs.append((own[0], own[1], 1))
            found = _likest(first, key, words, holders, negatives)
            pairs += [(own[0], title, 0) for title in found]
        first += len(own)
    return pairs


def _likest(
    number: int,
    key: tuple[str, str],
    words: Sequence[tuple[tuple[str, str], str, frozenset[str]]],
    holders: dict[tuple[str, str], list[int]],
    wanted: int,
) -> list[str]:
    """Titles of other clusters that share the most with a title, one a cluster."""
    shared: Counter[int] = Counter()
    for word in sorted(words[number][2]):
        found = holders[key[0], word]
        if len(found) <= _COMMON:
            weight = float(np.log1p(len(words) / len(found)))
            for other in found:
                shared[other] += weight  # type: ignore[assignment]
    best: dict[tuple[str, str], str] = {}
    for other, _ in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        other_key, title, _ = words[other]
        if other_key != key and other_key not in best:
            best[other_key] = title
            if len(best) == wanted:
                break
    return list(best.values())
