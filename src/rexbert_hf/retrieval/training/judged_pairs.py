"""Rows of judged pairs as numbers, a batch at a time: of a click log's files half the rows are random, and never read.

A row that is kept costs 24 bytes (three numbers) until the judgements are sorted; texts are kept of distinct queries
alone.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from rexbert_hf.catalog import SPLITS, normalize_text, read_label
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.pairs.query_split import QuerySplit

logger = logging.getLogger(__name__)

LABEL_GRADES = {"E": 1.0, "S": 0.66, "C": 0.33, "I": 0.0, "1": 1.0, "0": 0.0}
"""Grades of ESCI labels, as RexBERT's own sentence-transformers script has them; of a click log's: bought, shown."""
RANDOM_LABEL = "-1"
"""A product drawn at random: nobody judged it, and training draws its own anew in every epoch, so it is left out."""
NEITHER_LABEL = "-2"
"""Clicked and not bought, and the like: not judged, and never a negative; see `SearchData.neither`."""

_BATCH_ROWS = 10_000
_TRAIN = SPLITS.index("train")
_EMPTY, _UNKNOWN, _WITHOUT = "an empty query", "an unknown product", "no label or relevance"


@dataclass(frozen=True)
class JudgedPairs:
    """Queries by number, and what was judged for them.

    Attributes:
        queries: distinct ones that have a judged product.
        splits: place of each in `SPLITS`, int8 `[Q]`.
        judged: graded products of each query.
        neither: query and product number of pairs that are no judgement, int64 `[N, 2]`, sorted, each once.
    """

    queries: list[str]
    splits: np.ndarray
    judged: Judgements
    neither: np.ndarray


def read_judged_pairs(rows: Dataset, number: Mapping[str, int], split: QuerySplit, place: str) -> JudgedPairs:
    """Read rows of query, product_id, and label or relevance, and split where the rows bring their own.

    Rows with an empty query, an unknown product, or neither label nor relevance are left out, counted and reported.

    Args:
        rows: the pairs.
        number: of each product by its id.
        split: of queries without one of their own.
        place: of the pairs, in messages.

    Raises:
        ValueError: for an unknown label or split, a grade that is not finite, or if no row is left.
    """
    reader = _Reader(number, split, place)
    start = 0
    for table in rows.with_format("arrow").iter(batch_size=_BATCH_ROWS):
        reader.add_table(table, start)
        start += len(table)
    return reader.finish(start)


class _Reader:
    """What the rows so far came to."""

    def __init__(self, number: Mapping[str, int], split: QuerySplit, place: str) -> None:
        self.number, self.split, self.place = number, split, place
        self.worth: dict[str | None, float | str | None] = {None: None}
        """Of a label: its grade, or `RANDOM_LABEL` or `NEITHER_LABEL`, which have none."""
        self.numbers: dict[str, int] = {}
        self.queries: list[str] = []
        self.pairs, self.grades = array("q"), array("d")
        self.forms_aside: dict[str, int] = {}
        """A judged row may come after: so these have numbers of their own."""
        self.aside = array("q")
        self.held_out: dict[str, int] = {}
        self.torn: dict[str, int] = {}
        self.bad = dict.fromkeys((_EMPTY, _UNKNOWN, _WITHOUT), 0)

    def add_table(self, table: pa.Table, start: int) -> None:
        """Take a batch, of which random rows are dropped before they become Python's."""
        names = table.column_names
        keep = pc.invert(self._random(table)) if "label" in names else pa.array([True] * len(table))
        at = (start + np.flatnonzero(keep.to_numpy(zero_copy_only=False))).tolist()
        table = table.filter(keep)
        empty = [None] * len(table)
        columns = {name: table[name].to_pylist() if name in names else empty for name in _COLUMNS}
        for row, query, product, label, relevance, own in zip(at, *columns.values(), strict=True):
            # Six digits, so that a float32 column says 2.33 too.
            grade = self.worth[label] if relevance is None else round(relevance, 6)
            self._add(row, query or "", product, grade, own)

    def _random(self, table: pa.Table) -> pa.ChunkedArray:
        labels = table["label"]
        for label in pc.unique(labels).to_pylist():
            if label not in self.worth:
                self.worth[label] = self._worth(label)
        random = [label for label, worth in self.worth.items() if worth == RANDOM_LABEL]
        found = pc.is_in(labels, pa.array(random, type=labels.type))
        return pc.and_(found, pc.is_null(table["relevance"])) if "relevance" in table.column_names else found

    def _worth(self, label: str) -> float | str | None:
        try:
            read = read_label(label)
        except ValueError as error:
            raise ValueError(f"data.pairs: {error}") from None
        return read if read is None else LABEL_GRADES.get(read, read)

    def _add(self, row: int, text: str, product: str, grade: float | str | None, own: str | None) -> None:
        if not text.strip() or product not in self.number or grade is None:
            self.bad[_EMPTY if not text.strip() else _UNKNOWN if product not in self.number else _WITHOUT] += 1
            return
        form = normalize_text(text)
        key = form if self.split.rule == "text" else text
        if isinstance(grade, str):  # NEITHER_LABEL
            self.aside.extend((self.forms_aside.setdefault(key, len(self.forms_aside)), self.number[product]))
            return
        index = self.numbers.setdefault(key, len(self.queries))
        if index == len(self.queries):
            self.queries.append(text)
        self.pairs.extend((index, self.number[product]))
        self.grades.append(grade)
        known = self.held_out.get(form, _TRAIN)
        named = None if own is None else _split_number(own, f"{self.place}, row {row}")
        if named is not None and form in self.held_out and named != known:
            self.torn[form] = row
        self.held_out[form] = self.split.further(known, text) if named is None else max(known, named)

    def finish(self, total: int) -> JudgedPairs:
        """Say what was left out, and sort what was not."""
        if self.torn:
            logger.warning(
                "%s: %d queries stand in two splits, as that of row %d: all their pairs go to the one held out further",
                *(self.place, len(self.torn), next(iter(self.torn.values()))),
            )
        for reason, count in self.bad.items():
            if count:
                logger.warning("%d of %d pairs have %s and are left out", count, total, reason)
        if not self.queries:
            raise ValueError(f"no usable pair is left of {total}: do data.pairs and data.products belong together?")
        splits = np.array([self.held_out[normalize_text(text)] for text in self.queries], dtype=np.int8)
        query, product = np.asarray(self.pairs).reshape(-1, 2).T
        judged = Judgements.from_pairs(query, product, np.asarray(self.grades), len(self.queries))
        of_form = np.array([self.numbers.get(form, -1) for form in self.forms_aside], dtype=np.int64)
        forms, products = np.asarray(self.aside).reshape(-1, 2).T
        neither = np.stack([of_form[forms], products], axis=1)
        return JudgedPairs(self.queries, splits, judged, np.unique(neither[neither[:, 0] >= 0], axis=0))


_COLUMNS = ("query", "product_id", "label", "relevance", "split")


def _split_number(name: str, where: str) -> int:
    if name not in SPLITS:
        raise ValueError(f"{where}: the split '{name}': use {', '.join(SPLITS)}, or set data.pair_columns without")
    return SPLITS.index(name)
