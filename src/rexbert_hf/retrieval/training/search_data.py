"""Queries, products and judged pairs as numbers: what the bi-encoder, its students and its evaluation read.

The split goes by query, so that no test query is ever trained on: the hash that all recipes share decides
(`pairs.events.QuerySplit`), unless the pairs bring a `split` column of their own. Products with the same text are one
group: they are never each other's negatives.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, Features, Value

from rexbert_hf.catalog import (
    PRODUCT,
    PRODUCT_FIELDS,
    load_sample,
    normalize_text,
    product_text,
    read_records,
)
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.pairs.query_split import QuerySplit
from rexbert_hf.retrieval.training.judged_pairs import read_judged_pairs
from rexbert_hf.settings.ranges import check_least
from rexbert_hf.settings.sole_run import is_full

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = range(3)
_PAIR_COLUMNS = {name: Value("string") for name in ("query", "product_id", "label", "split")}
_PAIR_COLUMNS["relevance"] = Value("float64")


@dataclass
class SearchDataSettings:
    """Where queries, products and judged pairs come from; without `pairs`, from the built-in sample shop.

    Attributes:
        sample_size: products of the sample shop.
        pairs: files or a Hub data set of judged pairs.
        pair_columns: {"query", "product_id", and "relevance" (a number) or "label" (E/S/C/I, or 1/0/-1/-2)}, and
            "split" (train, validation, test) where the pairs bring their own: our name, their column. None takes
            columns of these names, `split` where there is one.
        products: files or a Hub data set of the catalogue; None reads it from `pairs`.
        product_columns: {"product_id", "title", ...: their columns}. None takes columns of these names, of which
            product_id must be there.
        encoding: of text files.
        data_dir: relative paths start here.
        text_fields: what the text of a product is made of.
        field_names: put the field's name before each.
        relevant: pairs of this grade or above are relevant: positives in training, hits in evaluation.
        held_out: share of the queries that training never sees, half validation and half test, unless the pairs have a
            split of their own. A larger share only adds queries: pre-finetuning and fine-tuning may differ in it.
        split_rule: "text" as all recipes; "sha1_mod_10" is the published Home Depot split (.2 test, .1 validation).
        limit: read so many pairs at most.
    """

    sample_size: int | None = None
    pairs: str | list[str] | None = None
    pair_columns: dict[str, str | list[str]] | None = None
    products: str | list[str] | None = None
    product_columns: dict[str, str | list[str]] | None = None
    encoding: str = "utf-8"
    data_dir: str | None = None
    text_fields: list[str] = field(default_factory=lambda: ["title"])
    field_names: bool = False
    relevant: float = 1.0
    held_out: float = 0.2
    split_rule: Literal["text", "sha1_mod_10"] = "text"
    limit: int | None = None

    def __post_init__(self) -> None:
        QuerySplit(self.held_out)  # of the share it says what is wrong
        if self.pairs is None and (self.products is not None or self.pair_columns is not None):
            raise ValueError(
                "set data.pairs to judged pairs, or leave data.products and columns out for the sample shop"
            )
        if self.pair_columns is not None:
            self._check_columns(self.pair_columns)
        if not self.text_fields:
            raise ValueError("text_fields is empty: name at least one, as title")
        check_least(self, sample_size=2, limit=1)

    @property
    def name(self) -> str:
        """What cards and `run.json` call the data.

        Example:
            >>> SearchDataSettings().name, SearchDataSettings(pairs=["a.csv", "b.csv"]).name
            ('sample shop', 'a.csv, b.csv')
        """
        if self.pairs is None:
            return "sample shop"
        return self.pairs if isinstance(self.pairs, str) else ", ".join(self.pairs)

    def look_under(self, repository: Path) -> None:
        """Take a relative `data_dir` that is not here from a repository, so that recipes run from any folder.

        Args:
            repository: its root.
        """
        here = self.data_dir is None or Path(self.data_dir).is_dir()
        if self.data_dir is not None and not here and (repository / self.data_dir).is_dir():
            self.data_dir = str(repository / self.data_dir)

    def _check_columns(self, names: Iterable[str]) -> None:
        columns = set(names)
        unknown = sorted(columns - set(_PAIR_COLUMNS))
        if unknown or not {"query", "product_id"} <= columns or not {"label", "relevance"} & columns:
            raise ValueError(
                "data.pair_columns must name query, product_id, and label or relevance"
                + (f", not {', '.join(unknown)}" if unknown else "")
            )


@dataclass
class SearchData:
    """A catalogue, queries and graded pairs, by number.

    Attributes:
        product_ids: of the catalogue.
        texts: what is encoded of each product.
        groups: products with equal text have equal numbers; int64 `[P]`.
        queries: distinct queries.
        splits: 0 train, 1 validation, 2 test; int8 `[Q]`.
        judged: graded products of each query.
        relevant: a pair of this grade or above is relevant.
        titles: what made-up queries are made of: each product's own title, without the names of fields; `texts`
            where it is empty.
        neither: query and product number of pairs that are no judgement and must not become negatives; int64 `[N, 2]`,
            sorted, each once.
    """

    product_ids: list[str]
    texts: list[str]
    groups: np.ndarray
    queries: list[str]
    splits: np.ndarray
    judged: Judgements
    relevant: float
    titles: list[str] = field(default_factory=list)
    neither: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    def __post_init__(self) -> None:
        self.titles = self.titles or self.texts

    @cached_property
    def described(self) -> np.ndarray:
        """Products with text, bool `[P]`; of the others nothing can be searched, drawn or learned."""
        return np.array([bool(text) for text in self.texts], dtype=bool)

    def of(self, split: int, with_relevant: bool = True) -> np.ndarray:
        """Query numbers of a split.

        Args:
            split: `TRAIN`, `VALIDATION` or `TEST`.
            with_relevant: only queries that have a relevant product.
        """
        chosen = self.splits == split
        return np.flatnonzero(chosen & (self.judged.count(self.relevant) > 0) if with_relevant else chosen)

    def pairs(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query number, product number and grade of every judged pair of some queries, three arrays `[J]`.

        Args:
            queries: query numbers.
        """
        part = self.judged.select(queries)
        return np.repeat(queries, np.diff(part.offsets)), part.products, part.grades

    def known(self, query: int) -> np.ndarray:
        """Products that must not be drawn as negatives of a query: the judged ones, and those that are neither.

        Args:
            query: its number.
        """
        low, high = self.judged.offsets[query : query + 2]
        start, stop = np.searchsorted(self.neither[:, 0], [query, query + 1])
        return np.concatenate([self.judged.products[low:high], self.neither[start:stop, 1]])

    @property
    def fingerprint(self) -> str:
        """Changes with any text, pair, grade or split."""
        digest = hashlib.sha256()
        for texts in (self.product_ids, self.texts, self.queries):
            digest.update("\0".join(texts).encode("utf-8", "surrogatepass"))
        if self.titles != self.texts:
            digest.update("\0".join(["titles", *self.titles]).encode("utf-8", "surrogatepass"))
        for numbers in (self.splits, self.judged.offsets, self.judged.products, self.judged.grades):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        if len(self.neither):
            digest.update(b"neither" + np.ascontiguousarray(self.neither).tobytes())
        return digest.hexdigest()[:16]


def load_search_data(settings: SearchDataSettings) -> SearchData:
    """Read the catalogue and the judged pairs.

    Pairs with an unknown product or an empty query are left out, counted and reported; a product without title is
    described by its other fields, and stays in the catalogue without any. Pairs with the label -2 go into `neither`,
    where their query has a judged product. Forms of one query (equal after `normalize_text`) are one, or, by the
    published rule, two that are held out alike.

    Args:
        settings: where they are.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: for an unknown label, a missing column, or if no pair is left.
        OSError: if $TMPDIR, where pairs lie while they are read, has no room; it is named.

    Example:
        >>> data = load_search_data(SearchDataSettings(sample_size=30))
        >>> len(data.product_ids), len(data.queries) == len(data.splits)
        (30, True)
    """
    ids, texts, titles = _catalogue(_read_products(settings), settings)
    number = {product_id: i for i, product_id in enumerate(ids)}
    split = QuerySplit(settings.held_out, settings.split_rule)
    try:
        with temporary_folder() as folder:  # mapped from there: in memory they take as much again as they are read
            found = read_judged_pairs(_read_pairs(settings, folder), number, split, str(settings.pairs))
    except OSError as error:
        place = tempfile.gettempdir()
        if not is_full(error, place):
            raise
        # Else the run's folder would be named as the one that is full.
        reason, way_out = error.strerror or "full", "make room there, or set TMPDIR to another disk"
        raise OSError(f"{place}: no room for data.pairs while they are read ({reason}): {way_out}") from error
    return SearchData(
        ids, texts, text_groups(texts), found.queries, found.splits, found.judged, settings.relevant, titles,
        found.neither,
    )  # fmt: skip


def text_groups(texts: Sequence[str]) -> np.ndarray:
    """A number for each text, equal for texts that are equal once normalised; int64 `[N]`.

    Example:
        >>> text_groups(["Red mug", "red  MUG", "plate"]).tolist()
        [0, 0, 1]
    """
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(normalize_text(text), len(seen)) for text in texts], dtype=np.int64)


def _located(paths: str | list[str], data_dir: str | None) -> str | list[str]:
    if isinstance(paths, list):
        return [str(_located(path, data_dir)) for path in paths]
    under = Path(data_dir or ".") / paths
    return str(under) if data_dir and (under.exists() or any(under.parent.glob(under.name))) else paths


def _read_products(settings: SearchDataSettings) -> Dataset:
    if settings.pairs is None:
        return load_sample("products", size=settings.sample_size)
    source = _located(settings.products or settings.pairs, settings.data_dir)
    return read_records(
        source,
        settings.product_columns,
        features=Features({name: PRODUCT[name] for name in _product_columns(settings)}),
        required=["product_id"] if settings.product_columns is None else None,
        encoding=settings.encoding,
    )


def _product_columns(settings: SearchDataSettings) -> list[str]:
    names = list(settings.product_columns or PRODUCT)
    unknown = [name for name in names if name not in PRODUCT]
    if unknown or "product_id" not in names:
        raise ValueError(
            f"data.product_columns names {', '.join(unknown) or 'no product_id'}: products have {', '.join(PRODUCT)}"
        )
    return names


def _read_pairs(settings: SearchDataSettings, folder: str) -> Dataset:
    if settings.pairs is None:
        return load_sample("query_products", size=settings.sample_size)
    source = _located(settings.pairs, settings.data_dir)
    columns = settings.pair_columns
    if columns is None:
        there = set(read_records(source, encoding=settings.encoding, limit=1).column_names)
        graded = "relevance" if "label" not in there and "relevance" in there else "label"
        columns = {name: name for name in ("query", "product_id", graded, "split") if name != "split" or name in there}
    features = Features({name: _PAIR_COLUMNS[name] for name in columns})
    return read_records(
        source, columns, features=features, encoding=settings.encoding, limit=settings.limit, cache_dir=folder
    )


def _catalogue(products: Dataset, settings: SearchDataSettings) -> tuple[list[str], list[str], list[str]]:
    """Ids, texts and titles; of a product that comes twice the first row stays."""
    names = [name for name in PRODUCT_FIELDS if name in products.column_names]
    plain = settings.text_fields == ["title"] and not settings.field_names
    found: dict[str, str] = {}
    titles: list[str] = []
    repeated = 0
    columns = {name: products[name][:] for name in ("product_id", *names)}
    for i, product_id in enumerate(columns["product_id"]):
        if not product_id or product_id in found:
            repeated += 1
            continue
        title = ((columns["title"][i] if "title" in columns else None) or "").strip()
        if plain and title:
            found[product_id] = title
        else:
            product = {name: columns[name][i] for name in names}
            found[product_id] = _described(product, settings.text_fields, settings.field_names)
            title = title or _described(product, settings.text_fields, False)
        titles.append(title)
    missing = sum(not text for text in found.values())
    if missing == len(found):
        place = settings.products or settings.pairs
        raise ValueError(f"{place}: no product has an id and a text: map {', '.join(PRODUCT_FIELDS)} (product_columns)")
    if missing:
        logger.warning("%d of %d products have no text: figures leave out those never judged", missing, len(found))
    if repeated and settings.products is not None:
        logger.warning("%d rows repeat a product id or have none: the first row of a product counts", repeated)
    return list(found), list(found.values()), titles


def _described(product: Mapping[str, Any], text_fields: Sequence[str], field_names: bool) -> str:
    """The chosen fields, or all others where those are empty."""
    text = product_text(product, text_fields, field_names)
    return text or product_text(product, [name for name in PRODUCT_FIELDS if name in product], field_names)
