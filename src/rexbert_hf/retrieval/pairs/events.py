"""A click log to counts: how often each product was shown, clicked and bought for each query (section 3.1).

The log is read once, event by event; what stays in memory are the counts of each (query, product), 25 bytes a pair in
arrays, and the texts of the queries. Events outside a query's period (see `QuerySplit`) give no counts, but their
products are remembered, so that one bought once for a query is never its negative, and one shown once no random one.
Where a later form of a query may still hold it out, both periods are counted, and the end chooses: a product of both
takes twice the bytes until then.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from rexbert_hf.catalog import SPLITS, normalize_text
from rexbert_hf.catalog.columns import as_text
from rexbert_hf.retrieval.pairs.query_split import QuerySplit

logger = logging.getLogger(__name__)

CONTEXT = ("language", "country")
"""What of an event may be a field of its query, beside the text."""
_BUFFERED = 1 << 20
_NEVER = np.iinfo(np.int32).max
_LISTS = ("shown", "clicked", "bought")
NAMED = 2
"""Unknown products that a message names."""


@dataclass
class QueryGroup:
    """What is known of one query; products are indexes into the catalogue, int64, ascending.

    Attributes:
        query: as it was first typed.
        split: train, validation or test.
        positives: bought, or judged relevant.
        hard: shown without interaction, or judged not relevant.
        known: never drawn as random negatives: all products that were shown, clicked, bought or judged.
        neither: clicked and not bought, or clicked or bought outside the query's period only; or judged to be neither.
            No positives, and nobody's negatives.
    """

    query: str
    split: str
    positives: np.ndarray
    hard: np.ndarray
    known: np.ndarray
    neither: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass
class EventCounts:
    """Counts of a log, sorted by query, then product.

    Attributes:
        queries: first form of each distinct query (distinct after `normalize_text`).
        splits: index into `SPLITS` of each query, int8.
        query: index of the query of each pair, int32 `[P]`.
        product: index of its product, int32 `[P]`.
        shown: events that showed the product, int32 `[P]`.
        clicks: events with a click on it, int32 `[P]`.
        purchases: events with a purchase of it, int32 `[P]`.
        position: best position (from 1) at which it was shown, int32 `[P]`.
        touched: bool `[P]`, clicked or bought in any event, those outside the query's period included.
        contexts: language and country of each query, each None unless all of its events name the same.
        report: what was read and what was left out.
    """

    queries: list[str]
    splits: np.ndarray
    query: np.ndarray
    product: np.ndarray
    shown: np.ndarray
    clicks: np.ndarray
    purchases: np.ndarray
    position: np.ndarray
    touched: np.ndarray
    contexts: list[tuple[str | None, ...]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.query)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def ranges(self) -> Iterator[tuple[int, slice]]:
        """Each query that has pairs, with the range of its pairs."""
        borders = np.flatnonzero(np.diff(self.query, prepend=-1, append=len(self.queries)))
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            yield int(self.query[start]), slice(start, stop)

    def groups(self) -> Iterator[QueryGroup]:
        """Positives (bought), hard negatives (shown, never clicked or bought) and what is neither, of each query."""
        for query, at in self.ranges():
            product, bought = self.product[at].astype(np.int64), self.purchases[at] > 0
            touched = self.touched[at]
            ignored = (self.shown[at] > 0) & ~touched
            split = SPLITS[self.splits[query]]
            neither = product[touched & ~bought]
            yield QueryGroup(self.queries[query], split, product[bought], product[ignored], product, neither)


def count_events(
    events: Iterable[Mapping[str, Any]] | Dataset,
    product_ids: Sequence[str],
    split: QuerySplit | None = None,
    max_query_words: int = 64,
) -> EventCounts:
    """Count a click log.

    Queries are the same when they are equal after `normalize_text`. Products that the catalogue lacks, empty queries,
    queries of more than `max_query_words` words and events without a time (where time decides) are left out, counted in
    the report and logged once.

    Args:
        events: `SEARCH_EVENT` rows; any iterable, read once.
        product_ids: ids of the catalogue; a pair's product is an index into it.
        split: splits of queries and time; None for a tenth of the queries held out, at all times.
        max_query_words: longer queries are no queries (pasted pages, attacks).

    Raises:
        ValueError: if an id stands twice in the catalogue, an event is no mapping of lists, or nothing is left.

    Example:
        >>> event = {"query": "red mug", "shown": ["a", "b", "c"], "clicked": ["b"], "bought": ["b"]}
        >>> counts = count_events([event, event], ["a", "b"], QuerySplit(held_out=0))
        >>> counts.shown.tolist(), counts.purchases.tolist(), counts.report["unknown_products"]
        ([2, 2], [0, 2], 1)
    """
    counter = _Counter(product_ids, split or QuerySplit(), max_query_words)
    for number, event in enumerate(_rows(events)):
        try:
            counter.add(event)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"event {number}: {type(error).__name__}: {error}: an event needs 'query' and lists of product ids in "
                "'shown', 'clicked' and 'bought'"
            ) from None
        except ValueError as error:
            raise ValueError(f"event {number}: {error}") from None
    return counter.finish()


def _rows(events: Iterable[Mapping[str, Any]] | Dataset) -> Iterator[Mapping[str, Any]]:
    if not isinstance(events, Dataset):
        yield from events
        return
    for batch in events.with_format("arrow").iter(batch_size=1000):
        yield from batch.to_pylist()


def index_products(product_ids: Iterable[str]) -> dict[str, int]:
    """Index of each product id.

    Args:
        product_ids: of the catalogue.

    Raises:
        ValueError: if an id stands twice.

    Example:
        >>> index_products(["a", "b"])
        {'a': 0, 'b': 1}
    """
    index: dict[str, int] = {}
    for number, product in enumerate(product_ids):
        if index.setdefault(product, number) != number:
            raise ValueError(f"row {number} of the products: the id '{product}' stands in row {index[product]} already")
    return index


def known_id(products: Mapping[str, int], name: Any) -> Any:
    """An id that the catalogue lacks, in the form that it has: a whole number of a column with gaps gets a ".0".

    Args:
        products: of `index_products`.
        name: the id.

    Example:
        >>> known_id({"7": 0, "8": 1, "8.0": 2}, "7.0"), known_id({"8": 0, "8.0": 1}, "8.0"), known_id({}, "7.0")
        ('7', '8.0', '7.0')
    """
    if name in products:
        return name
    text = as_text(name)
    whole = text.removesuffix(".0")
    if not whole.isdecimal():
        whole = text  # "v1.0" is another article than "v1"
    return whole if whole in products else name


def unlike(products: Mapping[str, int], unknown: Sequence[Any]) -> str:
    """Ids that the catalogue lacks beside one of its own, for a message: their forms may differ.

    Args:
        products: of `index_products`.
        unknown: a few ids.

    Example:
        >>> unlike({"007": 0}, ["7", "8"])
        "such as '7', '8' where the catalogue has '007'"
    """
    own = next((f" where the catalogue has {name!r:.42}" for name in products), "")
    return f"such as {', '.join(f'{name!r:.42}' for name in unknown)}{own}"


class _Counter:
    """Buffers single counts and adds them up in arrays when there are enough of them."""

    def __init__(self, product_ids: Sequence[str], split: QuerySplit, max_query_words: int) -> None:
        self.products = index_products(product_ids)
        self.split, self.max_query_words = split, max_query_words
        self.queries: dict[str, int] = {}
        self.texts: list[str] = []
        self.splits: list[int] = []
        self.contexts: list[tuple[str | None, ...]] = []
        self._empty()
        self.held: list[np.ndarray] | None = None
        # Until the last event a form may come that is held out, and with it the other period.
        self.open = split.rule != "text" and split.train_until is not None
        self.early, self.late = array("q"), array("q")
        self.seen: Counter[str] = Counter()
        self.unknown: set[bytes] = set()
        self.named: list[Any] = []  # the first of them, for messages

    def _empty(self) -> None:
        """A new buffer, in arrays: 13 bytes a count, where a list of tuples takes over a hundred."""
        self.keys, self.positions, self.marks = array("q"), array("i"), array("b")

    def add(self, event: Mapping[str, Any]) -> None:
        self.seen["events"] += 1
        query = normalize_text(event["query"] or "")
        if not query or len(query.split()) > self.max_query_words:
            self.seen["events_too_long" if query else "events_without_query"] += 1
            return
        time = event.get("time")
        if self.split.train_until is not None and time in (None, ""):
            self.seen["events_without_time"] += 1
            return
        number = self.queries.get(query)
        if number is None:
            number = self.queries[query] = len(self.texts)
            self.texts.append(" ".join(event["query"].split()))
            self.splits.append(self.split.further(0, event["query"]))
            self.contexts.append(_context(event))
            self.early.append(0)
            self.late.append(0)
        elif self.split.rule != "text":
            self.splits[number] = self.split.further(self.splits[number], event["query"])
        if (context := _context(event)) != (known := self.contexts[number]):
            self.contexts[number] = tuple(a if a == b else None for a, b in zip(known, context, strict=True))
        if self.open:
            late = not self.split.counts(SPLITS[0], time)
            (self.late if late else self.early)[number] += 1
            self._add_products(number, event, counts=True, period=_LATE * late)
        else:
            counts = self.split.counts(SPLITS[self.splits[number]], time)
            self.seen["events_outside_period"] += not counts
            self._add_products(number, event, counts)
        if len(self.keys) > max(_BUFFERED, 0 if self.held is None else len(self.held[0]) // 4):
            self._flush()

    def _add_products(self, query: int, event: Mapping[str, Any], counts: bool, period: int = 0) -> None:
        shown = _ids(event["shown"], "shown")
        clicked, bought = (set(_ids(event.get(name), name)) for name in ("clicked", "bought"))
        positions: dict[str, int] = {}
        for position, product in enumerate(shown, 1):
            positions.setdefault(product, position)
        mentioned = [*positions, *sorted((clicked | bought) - positions.keys())]
        indexes = [self.products.get(product) for product in mentioned]
        if None in indexes and any(known_id(self.products, one) is not one for one in mentioned):  # not `!=`: NaN
            lists = {name: [known_id(self.products, one) for one in event.get(name) or ()] for name in _LISTS}
            self._add_products(query, lists, counts, period)
            return
        for product, index in zip(mentioned, indexes, strict=True):
            if index is None:
                self.seen["unknown_mentions"] += 1
                if len(self.named) < NAMED and product not in self.named:
                    self.named.append(product)
                digest = hashlib.sha1(str(product).encode("utf-8", "surrogatepass"), usedforsecurity=False)
                self.unknown.add(digest.digest()[:8])
                continue
            click, buy = product in clicked or product in bought, product in bought
            self.keys.append(query << 32 | period | index)
            self.positions.append(positions.get(product, _NEVER) if counts else _NEVER)
            inside = counts * (_SHOWN * (product in positions) + _CLICK * click + _BUY * buy)
            self.marks.append(inside + _TOUCHED * click)

    def _flush(self) -> None:
        if not self.keys:
            return
        marks = np.frombuffer(self.marks, dtype=np.int8)
        shown, clicks, bought = ((marks & mark > 0).astype(np.int32) for mark in (_SHOWN, _CLICK, _BUY))
        positions = np.frombuffer(self.positions, dtype=np.int32)
        fresh: list[np.ndarray] = [
            np.frombuffer(self.keys, dtype=np.int64),
            shown,
            clicks,
            bought,
            positions,
            marks & _TOUCHED > 0,
        ]
        self._empty()
        columns = fresh if self.held is None else [np.concatenate(pair) for pair in zip(self.held, fresh, strict=True)]
        self.held = _added_up(columns)

    def _settle(self) -> None:
        """Of each query keep the counts of its split's period, now that all of its forms are known."""
        held_out = np.array(self.splits, dtype=np.int8) > 0
        outside = np.where(held_out, np.array(self.early, dtype=np.int64), np.array(self.late, dtype=np.int64))
        self.seen["events_outside_period"] = int(outside.sum())
        if self.held is None:
            return
        key, *counts, position, _ = self.held
        other = (key & _LATE > 0) != held_out[key >> 32]
        for column in counts:
            column[other] = 0
        position[other] = _NEVER
        key &= ~_LATE
        self.held = _added_up(self.held)

    def finish(self) -> EventCounts:
        self._flush()
        if self.open:
            self._settle()
        known = self._report()
        if self.held is None:
            raise ValueError(f"no pair of a query and a known product is in the log ({known})")
        key, shown, clicks, purchases, position, touched = self.held
        query, product = (key >> 32).astype(np.int32), (key & 0xFFFFFFFF).astype(np.int32)
        splits = np.array(self.splits, dtype=np.int8)
        return EventCounts(
            self.texts, splits, query, product, shown, clicks, purchases, position, touched, self.contexts,
            dict(self.seen),
        )  # fmt: skip

    def _report(self) -> str:
        names = ("events", "events_without_query", "events_too_long", "events_without_time", "events_outside_period")
        self.seen.update(dict.fromkeys((*names, "unknown_mentions"), 0))
        self.seen["unknown_products"] = len(self.unknown)
        self.seen["queries"], self.seen["pairs"] = len(self.texts), 0 if self.held is None else len(self.held[0])
        left_out = {name: count for name, count in self.seen.items() if count and name not in ("queries", "pairs")}
        text = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in left_out.items())
        text += f" {unlike(self.products, self.named)}" if self.named else ""  # unknown products come last
        if len(left_out) > 1:
            logger.warning("the log has %s: what cannot be used is left out", text)
        return text


def _added_up(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Keys, sorted and each once, and what their rows come to."""
    order = np.argsort(columns[0], kind="stable")
    key = columns[0][order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    added = zip(_ADD, columns[1:], strict=True)
    return [key[first], *(add.reduceat(c[order], first, dtype=c.dtype) for add, c in added)]


def _ids(value: Any, name: str) -> Sequence[str]:
    """A list of ids; a text would be one of characters."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"'{name}' is text ({value[:40]!r})")
    return value or ()


def _context(event: Mapping[str, Any]) -> tuple[str | None, ...]:
    return tuple(sys.intern(str(event[name])) if event.get(name) else None for name in CONTEXT)


_SHOWN, _CLICK, _BUY, _TOUCHED = 1, 2, 4, 8
"""Bits of a count in the buffer; the last one counts in all events, the others inside the query's period."""
_LATE = 1 << 31
"""Bit of a key, above the product's index: the event is not of the period that training takes."""
_ADD = (np.add, np.add, np.add, np.minimum, np.logical_or)
