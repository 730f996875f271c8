"""Weakly labelled query-product pairs by rules over counts, and an audit that estimates how many are relevant.

The paper labels 15 million pairs relevant or irrelevant "with rules" that it does not print and wants more than 80 % of
the pairs it trains on to be relevant (sections 2.2 and 3.1). Here the rules are data, and the share is measured.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from rexbert_hf.catalog import normalize_text
from rexbert_hf.catalog.delimited import allow_long_fields
from rexbert_hf.catalog.escapes import as_cell, from_cell
from rexbert_hf.metrics.agreement import wilson_interval
from rexbert_hf.retrieval.pairs.draw import query_generator
from rexbert_hf.retrieval.pairs.events import EventCounts

logger = logging.getLogger(__name__)

RELEVANT_SHARE = 0.8
"""Below this share of relevant pairs the audit warns; the paper's alpha."""
Judge = Callable[[str, str], "bool | None"]
"""(query, product id) -> relevant, or None where there is no judgement."""


@dataclass(frozen=True)
class Rule:
    """Conditions on the counts of a pair; all that are given must hold.

    Attributes:
        min_shown: events that showed the product for the query.
        min_clicks: events with a click on it.
        max_clicks: at most so many.
        min_click_rate: clicks over events that showed it.
        max_click_rate: at most this rate.
        min_purchases: events with a purchase of it.
        max_position: its best position (from 1) is at most this.
        untouched: never clicked or bought, in any event of the log.
    """

    min_shown: int | None = None
    min_clicks: int | None = None
    max_clicks: int | None = None
    min_click_rate: float | None = None
    max_click_rate: float | None = None
    min_purchases: int | None = None
    max_position: int | None = None
    untouched: bool = False

    def __post_init__(self) -> None:
        if all(getattr(self, item.name) == item.default for item in fields(self)):
            names = ", ".join(item.name for item in fields(self))
            raise ValueError(f"a rule without a condition takes every pair: give one of {names}")

    def matches(self, counts: EventCounts) -> np.ndarray:
        """Pairs for which all conditions hold, bool `[P]`.

        Args:
            counts: of a log.
        """
        rate = counts.clicks / np.maximum(counts.shown, 1)
        measured = {
            "shown": counts.shown,
            "clicks": counts.clicks,
            "click_rate": rate,
            "purchases": counts.purchases,
            "position": counts.position,
        }
        keep = (counts.shown > 0) | (counts.clicks > 0)  # others are known from events outside the period only
        if self.untouched:
            keep &= ~counts.touched
        for item in fields(self):
            bound, (kind, _, name) = getattr(self, item.name), item.name.partition("_")
            if name and bound is not None:
                keep &= measured[name] >= bound if kind == "min" else measured[name] <= bound
        return keep


def label_weakly(counts: EventCounts, relevant: Sequence[Rule], irrelevant: Sequence[Rule] = ()) -> np.ndarray:
    """Label pairs by rules: 1 where a rule of `relevant` matches, else 0 where one of `irrelevant` does, else -1.

    Args:
        counts: of a log.
        relevant: any of these makes a pair relevant.
        irrelevant: any of these makes another pair irrelevant.

    Returns:
        int8 `[P]`; -1 is no pair of the data set.

    Raises:
        ValueError: if there is no rule for relevant pairs.
    """
    if not relevant:
        raise ValueError("no rule says what is relevant: give one, for instance {min_purchases: 1}")
    label = np.full(len(counts), -1, dtype=np.int8)
    for value, rules in ((0, irrelevant), (1, relevant)):  # relevant ones overrule
        for rule in rules:
            label[rule.matches(counts)] = value
    return label


def thin_out(counts: EventCounts, label: np.ndarray, irrelevant_share: float, seed: int = 0) -> np.ndarray:
    """Drop irrelevant pairs at random until they make up a share, in expectation; the labels with -1 for dropped ones.

    Args:
        counts: of a log.
        label: of `label_weakly`.
        irrelevant_share: of the pairs that stay, in [0, 1).
        seed: of the draw; a pair's fate depends on its query and place among the query's pairs.
    """
    relevant, irrelevant = int((label == 1).sum()), int((label == 0).sum())
    wanted = relevant * irrelevant_share / (1 - irrelevant_share)
    if irrelevant <= wanted:
        return label
    kept = label.copy()
    for query, at in counts.ranges():
        draws = query_generator(counts.queries[query], seed, stream=1).random(at.stop - at.start)
        kept[at][(label[at] == 0) & (draws >= wanted / irrelevant)] = -1
    return kept


@dataclass(frozen=True)
class Audit:
    """What the audit of a sample found.

    Attributes:
        sampled: pairs drawn.
        judged: of them with a judgement.
        relevant: of those judged relevant.
        share: relevant over judged; None without a judgement.
        low: lower end of the 95 % Wilson interval.
        high: upper end.
    """

    sampled: int
    judged: int
    relevant: int
    share: float | None
    low: float | None
    high: float | None


class AuditSample:
    """A uniform sample of the pairs labelled relevant, drawn as they pass: nothing but the sample is kept.

    It holds those whose hash is least, which follows from the pairs alone: what a person judged stays the sample.

    Args:
        size: pairs of the sample.
        seed: of the draw.
        judge: pairs that it has no judgement of are passed by; None takes all.

    Attributes:
        passed: pairs so far, judged or not.

    Example:
        >>> sample = AuditSample(2, seed=0)
        >>> for number, name in enumerate("abc"):
        ...     sample.add("mug", name, number)
        >>> sample.passed, [product for _, product, _ in sample.pairs]
        (3, ['a', 'c'])
    """

    def __init__(self, size: int, seed: int, judge: Judge | None = None) -> None:
        self.size, self.seed, self.judge, self.passed = size, seed, judge, 0
        self._heap: list[tuple[int, str, str, int]] = []

    def add(self, query: str, product: str, number: int) -> None:
        """Let a pair pass.

        Args:
            query: its text.
            product: the id.
            number: of the product.
        """
        self.passed += 1
        if not self.size or (self.judge is not None and self.judge(query, product) is None):
            return
        digest = hashlib.sha1(f"{self.seed} {query} {product}".encode()).digest()
        item = (-int.from_bytes(digest, "big"), query, product, number)  # the heap's first is what has to give way
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    @property
    def pairs(self) -> list[tuple[str, str, int]]:
        """Query, product id and number of each pair of the sample, in its order."""
        return [item[1:] for item in sorted(self._heap, key=lambda item: item[0], reverse=True)]


def audit_pairs(sample: Sequence[tuple[str, str]], judge: Judge, least: float = RELEVANT_SHARE) -> Audit:
    """Judge a sample of the pairs labelled relevant and estimate the share that is.

    Args:
        sample: (query, product id), drawn uniformly.
        judge: says what is relevant; `graded_judge` and `csv_judge` make one.
        least: warn when the estimate is below this share.

    Example:
        >>> answers = {"a": True, "b": False}
        >>> audit = audit_pairs([("mug", "a"), ("mug", "b"), ("mug", "c")], lambda query, product: answers.get(product))
        >>> audit.judged, audit.share
        (2, 0.5)
    """
    answers = [judge(query, product) for query, product in sample]
    judged = [answer for answer in answers if answer is not None]
    if not judged:
        logger.warning("none of the %d sampled pairs has a judgement: the relevant share is unknown", len(sample))
        return Audit(len(sample), 0, 0, None, None, None)
    relevant = sum(judged)
    found = wilson_interval(relevant, len(judged))
    share, low, high = found.value, found.low, found.high
    if share < least:
        logger.warning(
            "only %.1f%% of %d judged pairs are relevant (95%% interval %.1f to %.1f%%), below %.0f%%: make the rules "
            "stricter (more purchases or clicks, a higher click rate)",
            *(100 * share, len(judged), 100 * low, 100 * high, 100 * least),
        )
    return Audit(len(sample), len(judged), relevant, share, low, high)


def graded_judge(rows: Iterable[Mapping[str, Any]], is_relevant: Callable[[Mapping[str, Any]], bool]) -> Judge:
    """A judge of graded pairs; a pair that is not among them has no judgement. Rows without a query are left out.

    Args:
        rows: `QUERY_PRODUCT` rows.
        is_relevant: of a row.

    Raises:
        ValueError: if a row has no grade; it is named.

    Example:
        >>> rows = [{"query": "Mug", "product_id": "a", "label": "E"}]
        >>> judge = graded_judge(rows, lambda row: row["label"] in "ES")
        >>> judge("mug", "a"), judge("mug", "b")
        (True, None)
    """
    known: dict[tuple[str, str], bool] = {}
    without = 0
    for number, row in enumerate(rows):
        query = normalize_text(row["query"] or "")
        if not query:
            without += 1
            continue
        try:
            known[query, row["product_id"]] = is_relevant(row)
        except ValueError as error:
            raise ValueError(f"judgement {number} (query {row['query']!r}): {error}") from None
    if without:
        logger.warning("%d judgements of the audit have no query: they judge nothing", without)
    return lambda query, product: known.get((normalize_text(query), product))


_YES, _NO = ("1", "1.0", "yes", "y", "true"), ("0", "0.0", "no", "n", "false")


def csv_judge(path: str | Path) -> Judge:
    """A judge of a person's file: CSV with the columns query, product_id and relevant (1/0 or yes/no; empty: none).

    Args:
        path: the file; `write_audit_sample` makes one to fill in.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a column is missing, an answer is none of these, or the file is not UTF-8; file and line are
            named.
    """
    known: dict[tuple[str, str], bool] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = _rows_of(file)
            missing = {"query", "product_id", "relevant"} - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{path}: no column {', '.join(sorted(missing))}: the audit needs it")
            for row in reader:
                answer = (row["relevant"] or "").strip().lower()
                if answer and answer not in (*_YES, *_NO):
                    raise ValueError(f"{path}, line {reader.line_num}: relevant is 1 or 0, got {answer!r}")
                if answer:
                    known[normalize_text(from_cell(row["query"] or "")), row["product_id"]] = answer in _YES
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such audit file; audit_sample.csv of a first run is one to fill in"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it as UTF-8 (in a spreadsheet: CSV UTF-8)") from None
    return lambda query, product: known.get((normalize_text(query), product))


def write_audit_sample(
    path: str | Path, sample: Sequence[tuple[str, str]], titles: Sequence[str], earlier: Path | None = None
) -> None:
    """Write a sample for a person to judge, with a column `relevant` to fill in.

    What a person wrote into an earlier file stays: answers to pairs of this sample with them (one that a later answer
    to the same pair overrules stands above it, as does a remark without an answer), others below, and the columns that
    a person added.

    Args:
        path: of the CSV.
        sample: (query, product id).
        titles: of the products.
        earlier: the earlier file, where that is not `path`.

    Raises:
        ValueError: if the earlier file cannot be read, so that answers in it would be lost.
    """
    path = Path(path)
    further, written = read_audit_sample(earlier or path)
    rows = []
    for (query, product), title in zip(sample, titles, strict=True):
        of_pair = written.pop((normalize_text(query), product), [[""] * (len(_COLUMNS) + len(further))])
        answered = (place for place, row in enumerate(of_pair) if row[_RELEVANT].strip())
        old = of_pair.pop(max(answered, default=-1))  # the last answer counts, also with a remark of its own below
        rows += [*of_pair, [as_cell(query), product, as_cell(title), *old[_RELEVANT:]]]
    below = [row for rows_of_pair in written.values() for row in rows_of_pair]
    staged = path.with_name(f".{path.name}")
    try:
        with open(staged, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[*_COLUMNS, *further], *rows, *below])
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)  # of a full disk


def _rows_of(file: TextIO) -> csv.DictReader[str]:
    allow_long_fields()  # remarks outgrow the default
    return csv.DictReader(file)


_COLUMNS = ("query", "product_id", "title", "relevant")
_RELEVANT = 3
"""Where in a row begins what a person writes: the answer, then columns of their own."""


def read_audit_sample(path: Path) -> tuple[list[str], dict[tuple[str, str], list[list[str]]]]:
    """Columns that a person added to an earlier sample, and the rows that a person wrote something into, ours first.

    A pair has several rows where they say different things of it, in the file's order: the last answer is what counts.

    Args:
        path: of the CSV; without one there is nothing.

    Raises:
        ValueError: if it cannot be read, so that answers in it would be lost.
    """
    if not path.exists():
        return [], {}
    allow_long_fields()  # remarks outgrow the default
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if not set(_COLUMNS) <= set(header):
                raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
            ours = [header.index(name) for name in _COLUMNS]
            rows = []
            for cells in filter(None, reader):
                cells += [""] * (len(header) - len(cells))
                # Cells beyond the header too: not everybody names the column of a remark.
                rows.append([cells[i] for i in ours] + [cell for i, cell in enumerate(cells) if i not in ours])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: an earlier sample that cannot be read ({error}): move it or mend it") from None
    written: dict[tuple[str, str], list[list[str]]] = {}
    for row in rows:
        if "".join(row[_RELEVANT:]).strip():
            of_pair = written.setdefault((normalize_text(from_cell(row[0])), row[1]), [])
            if of_pair and (both := _joined(of_pair[-1], row)):
                of_pair[-1] = both
            else:
                of_pair.append(row)
    return [name for i, name in enumerate(header) if i not in ours], written


def _joined(first: list[str], second: list[str]) -> list[str] | None:
    """Two rows of a pair as one; None where both say something in a cell, and not the same."""
    cells = list(zip_longest(first[_RELEVANT:], second[_RELEVANT:], fillvalue=""))
    if any(a.strip() and b.strip() and a.strip() != b.strip() for a, b in cells):
        return None
    return [*first[:_RELEVANT], *(a if a.strip() else b for a, b in cells)]
