"""Training pairs for matching: positives, hard and random negatives of each query at a ratio (section 3.1; 1:10:11).

Each query is drawn with a generator of its own, seeded by (seed, the query's hash): its pairs depend neither on the
order of the log nor on other queries. Where a query has fewer hard negatives than the ratio wants, it gets those it
has, and the report says what was reached. Products that are neither follow, so that whoever draws negatives anew knows
them.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rexbert_hf.catalog import SPLITS, text_digests
from rexbert_hf.retrieval.pairs.events import QueryGroup

logger = logging.getLogger(__name__)

POSITIVE, HARD_NEGATIVE, RANDOM_NEGATIVE = 1, 0, -1
"""Labels of a pair, as `three_part_hinge` takes them."""
NEITHER = -2
"""Label of a pair that no loss and no figure takes: no positive, no negative, not judged."""
_NAMES = {POSITIVE: "positives", HARD_NEGATIVE: "hard_negatives", RANDOM_NEGATIVE: "random_negatives"}
_LABELS = np.array([*_NAMES, NEITHER], dtype=np.int8)


@dataclass(frozen=True)
class Ratio:
    """Positives to hard negatives to random negatives.

    Attributes:
        positive: above zero.
        hard: hard negatives for that many positives.
        random: random negatives for that many positives.
    """

    positive: float = 1.0
    hard: float = 10.0
    random: float = 11.0

    def __post_init__(self) -> None:
        if not 0 < self.positive < math.inf or not all(0 <= part < math.inf for part in (self.hard, self.random)):
            raise ValueError(f"a ratio needs positives above 0 and no negative number; got {self}")

    def __str__(self) -> str:
        return f"{self.positive:g}:{self.hard:g}:{self.random:g}"

    @classmethod
    def parse(cls, text: str) -> Ratio:
        """Read "1:10:11".

        Args:
            text: three numbers.

        Raises:
            ValueError: if they are not three numbers.

        Example:
            >>> Ratio.parse("1:10:11")
            Ratio(positive=1.0, hard=10.0, random=11.0)
        """
        try:
            positive, hard, random = (float(part) for part in text.split(":"))
        except ValueError:
            raise ValueError(f"ratio {text!r}: write positives:hard negatives:random negatives, as 1:10:11") from None
        return cls(positive, hard, random)


@dataclass
class QueryPairs:
    """The pairs of one query.

    Attributes:
        query: its text.
        split: train, validation or test.
        product: index of each product in the catalogue, int64 `[N]`.
        label: 1, 0, -1 or -2 of each, int8 `[N]`.
    """

    query: str
    split: str
    product: np.ndarray
    label: np.ndarray


@dataclass
class PairReport:
    """What was drawn and what was wanted, by split.

    Attributes:
        counts: (split, name) -> number; names are queries, positives, hard_negatives, random_negatives, neither,
            wanted_hard_negatives, wanted_random_negatives, queries_short_of_hard_negatives, queries_without_positive.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, split: str, **numbers: int) -> None:
        """Count.

        Args:
            split: of the query.
            **numbers: by name.
        """
        for name, number in numbers.items():
            self.counts[split, name] += number

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Counts of each split that has any, with the ratio that was reached."""
        found: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            counts = {name: number for (where, name), number in self.counts.items() if where == split}
            if counts:
                positives = counts.get("positives", 0)
                reached = [counts.get(name, 0) / positives if positives else 0.0 for name in list(_NAMES.values())[1:]]
                found[split] = {**counts, "ratio": "1:" + ":".join(f"{share:.2f}" for share in reached)}
        return found


def draw_pairs(
    groups: Iterable[QueryGroup],
    num_products: int,
    ratio: Ratio | None = None,
    seed: int = 0,
    report: PairReport | None = None,
) -> Iterator[QueryPairs]:
    """Draw the pairs of each query that has a positive.

    All positives are taken; hard negatives are drawn without replacement from those of the query, random negatives
    without replacement from the catalogue, never a product that is known to the query. A count that is no whole number
    is rounded at random, so that the ratio holds in expectation. All products that are neither come last.

    Args:
        groups: queries with their products.
        num_products: size of the catalogue.
        ratio: of the labels; None for 1:10:11.
        seed: of the draws.
        report: filled with counts.

    Example:
        >>> known = np.arange(4)
        >>> group = QueryGroup("red mug", "train", known[:1], known[1:3], known)
        >>> (pairs,) = draw_pairs([group], num_products=100, ratio=Ratio(1, 1, 2))
        >>> pairs.label.tolist(), bool((pairs.product[2:] >= 4).all())
        ([1, 0, -1, -1], True)
    """
    ratio, report = ratio or Ratio(), report if report is not None else PairReport()
    for group in groups:
        if not len(group.positives):
            report.add(group.split, queries_without_positive=1)
            continue
        rng = query_generator(group.query, seed)
        wanted = [_rounded(len(group.positives) * part / ratio.positive, rng) for part in (ratio.hard, ratio.random)]
        hard = rng.permutation(group.hard)[: wanted[0]]
        random = random_products(wanted[1], num_products, group.known, rng)
        report.add(
            group.split,
            queries=1,
            positives=len(group.positives),
            hard_negatives=len(hard),
            random_negatives=len(random),
            neither=len(group.neither),
            wanted_hard_negatives=wanted[0],
            wanted_random_negatives=wanted[1],
            queries_short_of_hard_negatives=int(len(hard) < wanted[0]),
        )
        parts = [group.positives, hard, random, group.neither]
        label = np.repeat(_LABELS, [len(part) for part in parts])
        yield QueryPairs(group.query, group.split, np.concatenate(parts), label)


def query_generator(query: str, seed: int, stream: int = 0) -> np.random.Generator:
    """The generator of a query.

    Args:
        query: its text; equal after `normalize_text` is equal here.
        seed: of the run.
        stream: tells apart what is drawn for one query.
    """
    return np.random.Generator(np.random.SFC64([seed, stream, *text_digests([query])[0].tolist()]))


def _rounded(number: float, rng: np.random.Generator) -> int:
    """A whole number whose expectation is `number`; no draw where it is whole."""
    whole = int(number)
    return whole + int(number > whole and rng.random() < number - whole)


def random_products(count: int, num_products: int, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distinct products drawn uniformly from the catalogue without the known ones; all there are where too few.

    Args:
        count: how many.
        num_products: size of the catalogue.
        known: indexes that are left out, int64, distinct.
        rng: the generator.

    Example:
        >>> rng = np.random.Generator(np.random.SFC64(0))
        >>> sorted(random_products(9, 4, np.array([1]), rng).tolist())
        [0, 2, 3]
    """
    if 4 * (count + len(known)) >= num_products:
        return rng.permutation(np.setdiff1d(np.arange(num_products), known))[:count]
    drawn = np.zeros(0, dtype=np.int64)
    while len(drawn) < count:  # at least three of four draws are new, so this ends soon
        more = rng.integers(num_products, size=2 * (count - len(drawn)) + 8)
        drawn = np.concatenate([drawn, more[~np.isin(more, known)]])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]  # first occurrences, in their order
    return drawn[:count]
