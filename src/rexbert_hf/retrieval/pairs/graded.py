"""Graded judgements (Home Depot's relevance, ESCI's letters) in the form of a click log's pairs.

A shop without a log starts here: judged relevant is what the log calls bought, judged not relevant what it calls shown
without interaction.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rexbert_hf.catalog import LABELS, SPLITS, normalize_text, read_label
from rexbert_hf.retrieval.pairs.events import NAMED, QueryGroup, index_products, known_id, unlike
from rexbert_hf.retrieval.pairs.query_split import QuerySplit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grades:
    """What a grade means; letters are read where a row has a label, numbers where it has a relevance.

    Attributes:
        positive: letters that make a positive.
        hard: letters that make a hard negative.
        relevant: letters of relevant pairs, for stage 2 and audits.
        positive_from: relevance from which a pair is a positive (Home Depot: 2.33).
        hard_below: relevance below which it is a hard negative.
        relevant_from: relevance from which it counts as relevant.
    """

    positive: tuple[str, ...] = ("E",)
    hard: tuple[str, ...] = ("S", "C", "I")
    relevant: tuple[str, ...] = ("E", "S")
    positive_from: float = 2.33
    hard_below: float = 2.33
    relevant_from: float = 2.33

    def __post_init__(self) -> None:
        unknown = sorted({*self.positive, *self.hard, *self.relevant} - set(LABELS))
        if unknown:
            raise ValueError(f"unknown label '{unknown[0]}': judgements are {', '.join(LABELS)}")
        if set(self.positive) & set(self.hard) or self.hard_below > self.positive_from:
            raise ValueError("a grade cannot be positive and a hard negative at once: correct positive and hard")

    def label(self, row: Mapping[str, Any]) -> int | None:
        """1 for a positive, 0 for a hard negative, None for neither.

        Args:
            row: a `QUERY_PRODUCT` row.

        Example:
            >>> grades = Grades()
            >>> grades.label({"label": "E"}), grades.label({"label": None, "relevance": 1.5})
            (1, 0)
        """
        grade = _grade(row)
        if isinstance(grade, str):
            return 1 if grade in self.positive else 0 if grade in self.hard else None
        return 1 if grade >= self.positive_from else 0 if grade < self.hard_below else None

    def is_relevant(self, row: Mapping[str, Any]) -> bool:
        """Whether a judged pair counts as relevant.

        Args:
            row: a `QUERY_PRODUCT` row.
        """
        grade = _grade(row)
        return grade in self.relevant if isinstance(grade, str) else grade >= self.relevant_from


def _grade(row: Mapping[str, Any]) -> str | float:
    label = read_label(row.get("label"))
    if label is not None:
        if label not in LABELS:
            raise ValueError(f"label {label} is no judgement: judgements are {', '.join(LABELS)}")
        return label
    if row.get("relevance") is None:
        raise ValueError("neither a label nor a relevance: map one of the two in 'columns'")
    return round(float(row["relevance"]), 5)  # so that 2.33 in single precision is 2.33


@dataclass(frozen=True)
class GradedPair:
    """One judged pair.

    Attributes:
        query: its text.
        split: of the query.
        product: index into the catalogue.
        label: 1, 0 or None, as `Grades.label`.
        relevant: as `Grades.is_relevant`.
    """

    query: str
    split: str
    product: int
    label: int | None
    relevant: bool


def read_grades(
    rows: Iterable[Mapping[str, Any]],
    product_ids: Sequence[str],
    grades: Grades,
    split: QuerySplit,
    max_query_words: int = 64,
) -> tuple[list[GradedPair], dict[str, int]]:
    """Judged pairs with their splits, and counts of what was left out; a pair judged twice keeps its last grade.

    Args:
        rows: `QUERY_PRODUCT` rows.
        product_ids: of the catalogue.
        grades: what they mean.
        split: of the queries; judgements have no time.
        max_query_words: longer queries are no queries (pasted pages, attacks).

    Raises:
        ValueError: if a row has no grade, or nothing is left.
    """
    index, report = index_products(product_ids), Counter({"judgements": 0, "repeated": 0})
    texts: dict[str, str] = {}
    splits: dict[str, int] = {}
    found: dict[tuple[str, int], GradedPair] = {}
    unknown: list[Any] = []
    for number, row in enumerate(rows):
        report["judgements"] += 1
        query = normalize_text(row["query"] or "")
        product = index.get(known_id(index, row["product_id"]))
        too_long = len(query.split()) > max_query_words
        if not query or too_long or product is None:
            report["without_query" if not query else "too_long" if too_long else "unknown_mentions"] += 1
            if product is None and len(unknown) < NAMED and row["product_id"] not in unknown:
                unknown.append(row["product_id"])
            continue
        text = texts.setdefault(query, " ".join(row["query"].split()))
        splits[query] = split.further(splits.get(query, 0), row["query"])
        report["repeated"] += (query, product) in found
        try:
            found[query, product] = GradedPair(text, "", product, grades.label(row), grades.is_relevant(row))
        except ValueError as error:
            raise ValueError(f"judgement {number} (query {row['query']!r}): {error}") from None
    named = f"{dict(report)}" + (f", products {unlike(index, unknown)}" if unknown else "")
    if not found:
        raise ValueError(f"no judgement names a query and a known product ({named}): check columns and products")
    if report["without_query"] or report["too_long"] or report["unknown_mentions"]:
        logger.warning("judgements without query, of too long ones or of unknown products are left out: %s", named)
    pairs = [replace(pair, split=SPLITS[splits[query]]) for (query, _), pair in found.items()]
    return pairs, {**report, "queries": len(texts), "pairs": len(found)}


def graded_groups(pairs: Iterable[GradedPair]) -> list[QueryGroup]:
    """Positives, hard negatives and what was judged to be neither, of each query.

    Args:
        pairs: of `read_grades`.
    """
    by_query: dict[str, list[GradedPair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query, []).append(pair)

    def chosen(group: list[GradedPair], *labels: int | None) -> np.ndarray:
        return np.array(sorted(p.product for p in group if not labels or p.label in labels), dtype=np.int64)

    return [
        QueryGroup(query, group[0].split, chosen(group, 1), chosen(group, 0), chosen(group), chosen(group, None))
        for query, group in by_query.items()
    ]
