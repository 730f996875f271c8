"""The search page without its looks: what is typed becomes answers of every mode, and nothing it meets is a traceback.

`recipes/space/app.py` draws it with Gradio, `page_html.py` writes what a browser is given.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rexbert_hf.catalog.nested import PATH_SEPARATOR
from rexbert_hf.retrieval.serving.filters import number_of
from rexbert_hf.retrieval.serving.search_index import Hits, SearchIndex
from rexbert_hf.retrieval.serving.texts import typed_text

logger = logging.getLogger(__name__)

MODES = ("lexical", "dense", "hybrid")
"""Sides of the page, from left to right."""

MOST_CHARACTERS = 1_000
"""Of a query; no model here reads more of one, and BM25 would only get slower."""

MOST_CATEGORIES = 500
"""Choices of the category filter; beyond, top levels alone are offered."""

REFRESH_SECONDS = 60.0
"""After so long a search looks whether a newer version of the index was saved."""

UNREACHABLE = "The search service cannot be reached at the moment. Try again later."
FAILED = "This search failed. The log of the page says why."
EMPTY = "Type what you are looking for."


@dataclass(frozen=True)
class ShownHit:
    """One product of an answer.

    Attributes:
        product_id: of the product.
        text: what the index encoded of it.
        score: cosine, BM25 or fused ranks, by the mode.
        facts: its filter columns.
    """

    product_id: str
    text: str
    score: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class Side:
    """The answer of one mode.

    Attributes:
        mode: "lexical", "dense" or "hybrid".
        milliseconds: that the search took, encoding of the query included; None where nothing was searched.
        hits: best first.
        problem: why there is no answer, in words for the person who asked.
    """

    mode: str
    milliseconds: float | None = None
    hits: list[ShownHit] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Answer:
    """What the page shows for a query.

    Attributes:
        query: what was searched for.
        note: what the person should know: why there are no hits, what was left out.
        sides: an answer of each mode.
    """

    query: str
    note: str
    sides: list[Side]


class SearchPage:
    """A search box over an index.

    Args:
        index: a `ProductIndex` or `QdrantIndex`, with the model that encodes queries.
        hits: products shown on each side.

    Raises:
        ValueError: if the index cannot answer texts, because its model is missing.

    Example:
        >>> from rexbert_hf.retrieval.serving.index import ProductIndex
        >>> products = [{"product_id": "a", "title": "Red lamp", "price": 20}, {"product_id": "b", "title": "Red mug"}]
        >>> page = SearchPage(ProductIndex.build(products, "hashing", kind="flat"))
        >>> answer = page.search("red lamp", max_price=30)
        >>> [(side.mode, [hit.product_id for hit in side.hits]) for side in answer.sides]
        [('lexical', ['a']), ('dense', ['a']), ('hybrid', ['a'])]
    """

    def __init__(self, index: SearchIndex, hits: int = 8) -> None:
        self.index, self.hits = index, hits
        self._refreshing, self._refreshed = threading.Lock(), time.monotonic()
        self._look()
        for mode in MODES:  # what is loaded at the first search is loaded now, and its trouble is this process's
            index.search("a", 1, mode=mode)

    def _look(self) -> None:
        self.columns = set(self.index.filter_columns)
        self.categories = categories_of(self.index.choices("category_path"))

    def refresh(self) -> None:
        """Show the version of the index that was saved last; what goes wrong goes to the log, and the page stays."""
        if not self._refreshing.acquire(blocking=False):
            return  # another thread is at it
        try:
            if answered(self.index.refresh)[0]:
                self._look()
                logger.info("opened a newer version: %r", self.index)
        finally:
            self._refreshed = time.monotonic()
            self._refreshing.release()

    def search(
        self,
        query: str | None,
        category: str | None = None,
        max_price: str | float | None = None,
        in_stock: bool = False,
    ) -> Answer:
        """Search on every side.

        Args:
            query: anything; control characters are dropped, and what exceeds `MOST_CHARACTERS`.
            category: a level of the path or its beginning.
            max_price: a number, or what was typed into a form, in the catalogue's currency.
            in_stock: leave out products that are not, or whose stock is unknown.
        """
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            threading.Thread(target=self.refresh, daemon=True).start()  # nobody waits for it
        text, cut = typed_text(query or "", MOST_CHARACTERS)
        wanted, notes = self._filter(category, max_price, in_stock)
        if cut:
            notes.append(f"Only the first {MOST_CHARACTERS:,} characters were searched for.")
        if not text:
            return Answer("", " ".join([EMPTY, *notes]), [Side(mode) for mode in MODES])
        searched, problem = answered(lambda: self.index.corrected(text))
        if not problem and searched != text:
            notes.append(f"Searched for: {searched}")
        sides = [self._side(text, mode, wanted) for mode in MODES]
        if not any(side.hits or side.problem for side in sides):
            notes.append("Nothing was found: try other words" + (" or a wider filter." if wanted else "."))
        return Answer(text, " ".join(notes), sides)

    def _filter(
        self, category: str | None, max_price: str | float | None, in_stock: bool
    ) -> tuple[dict[str, Any], list[str]]:
        wanted: dict[str, Any] = {}
        notes = []
        if category and "category_path" in self.columns:
            wanted["category_path"] = str(category)
        if max_price not in (None, "") and "price" in self.columns:
            price = price_of(max_price)
            if math.isfinite(price) and price >= 0:
                wanted["price"] = (None, price)
            else:
                notes.append("The highest price must be a number from 0 up: it was left out.")
        if in_stock and "in_stock" in self.columns:
            wanted["in_stock"] = True
        return wanted, notes

    def _side(self, text: str, mode: str, wanted: dict[str, Any]) -> Side:
        def ask() -> tuple[float, list[ShownHit]]:
            start = time.perf_counter()
            (hits,) = self.index.search(text, self.hits, wanted or None, mode)
            milliseconds = (time.perf_counter() - start) * 1e3
            return milliseconds, self._shown(hits)

        found, problem = answered(ask)
        return Side(mode, problem=problem) if found is None else Side(mode, *found)

    def _shown(self, hits: Hits) -> list[ShownHit]:
        ids = [name for name, _ in hits]
        rows = zip(hits, self.index.texts(ids), self.index.facts(ids), strict=True)
        return [ShownHit(name, text or name, score, facts) for (name, score), text, facts in rows]


def answered(ask: Callable[[], Any]) -> tuple[Any, str]:
    """What a call gives, or words for the person who asked; the error goes to the log.

    Args:
        ask: the call.

    Example:
        >>> answered(lambda: 3)
        (3, '')
    """
    try:
        return ask(), ""
    except (ConnectionError, TimeoutError) as error:
        logger.error("%s", error)
        return None, UNREACHABLE
    except Exception:  # whatever it is, a visitor is not shown a traceback
        logger.exception("a request to the page failed")
        return None, FAILED


def price_of(typed: Any) -> float:
    """The number that somebody typed; NaN for what is none.

    Args:
        typed: a number, or a text.

    Example:
        >>> price_of(" $1,050.50"), price_of("59,90"), price_of("cheap")
        (1050.5, 59.9, nan)
    """
    number = number_of(typed) if isinstance(typed, str) else float(typed)
    return math.nan if number is None else number


def categories_of(paths: list[str]) -> list[str]:
    """Choices of the category filter: every beginning of the paths that there are.

    Args:
        paths: levels joined by " > ".

    Example:
        >>> categories_of(["Home > Lamps", "Home > Rugs"])
        ['Home', 'Home > Lamps', 'Home > Rugs']
    """
    levels = [path.split(PATH_SEPARATOR) for path in paths]
    found = sorted({PATH_SEPARATOR.join(path[:n]) for path in levels for n in range(1, len(path) + 1)})
    return found if len(found) <= MOST_CATEGORIES else sorted({path[0] for path in levels})[:MOST_CATEGORIES]
