"""What the search tasks read: a catalogue, test queries and graded judgements, with the scales that go with them.

Three kinds of data: Home Depot's file (relevance 1 to 3), pairs with ESCI labels, and the sample shop, which has ESCI
labels too. The scale says which grade is exact, substitute and relevant, and which gains nDCG takes: gains differ
between publications (ESCI's organisers 1/.1/.01/0, RexBERT's script 1/.66/.33/0), so every figure names its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rexbert_hf.evaluation.task import DataMissing, TaskSource, content_hash
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.training.evaluator import exponential_gain, part_of
from rexbert_hf.retrieval.training.search_data import TEST, TRAIN, SearchData, SearchDataSettings, load_search_data

HOMEDEPOT = "homedepot/train.csv.zip"
PAIRS = {"query": "query", "product_id": "product_id"}

Gain = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scale:
    """What grades mean.

    Attributes:
        relevant: a hit has this grade or above.
        exact: least grade of an exact match.
        substitute: least grade of a substitute.
        gains: name -> what a grade is worth in nDCG; the first one is the publication's own.
        said: the same in words.
    """

    relevant: float
    exact: float
    substitute: float
    gains: dict[str, Gain]
    said: str


def esci_gain(grades: np.ndarray) -> np.ndarray:
    """Gains of ESCI's organisers: exact 1, substitute .1, complement .01, irrelevant 0; NaN stays NaN.

    Args:
        grades: 1, .66, .33, 0 for E, S, C, I.

    Example:
        >>> esci_gain(np.array([1.0, 0.66, 0.33, 0.0])).tolist()
        [1.0, 0.1, 0.01, 0.0]
    """
    worth = np.select([grades >= 1.0, grades >= 0.66, grades >= 0.33], [1.0, 0.1, 0.01], 0.0)
    return np.where(np.isnan(grades), np.nan, worth)


def plain_gain(grades: np.ndarray) -> np.ndarray:
    """The grade itself.

    Example:
        >>> plain_gain(np.array([0.66])).tolist()
        [0.66]
    """
    return np.asarray(grades)


HOMEDEPOT_SCALE = Scale(
    relevant=2.33,
    exact=2.67,
    substitute=2.0,
    gains={"2^(rel-1)-1": exponential_gain},
    said="relevance 1 to 3, mean of three raters: relevant from 2.33, exact (E) from 2.67, substitute (S) from 2; O is "
    "the rest, unjudged products included; gains 2^(relevance - 1) - 1",
)
ESCI_SCALE = Scale(
    relevant=1.0,
    exact=1.0,
    substitute=0.66,
    gains={"E1/S.1/C.01/I0": esci_gain, "E1/S.66/C.33/I0": plain_gain},
    said="labels E, S, C, I: relevant is E; O is C, I and unjudged; gains of ESCI's organisers (E 1, S .1, C .01, "
    "I 0), and of RexBERT's script (1, .66, .33, 0)",
)


@dataclass(frozen=True)
class SearchProtocol:
    """Test queries over a catalogue.

    Attributes:
        data: catalogue, all queries, judgements.
        scale: what grades mean.
        queries: numbers of the test queries that have a relevant product.
        products: numbers of the products that are searched, sorted.
        left_out: test queries without a relevant product.
        counts: for the report.
    """

    data: SearchData
    scale: Scale
    queries: np.ndarray
    products: np.ndarray
    left_out: int
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def query_texts(self) -> list[str]:
        """Of the test queries."""
        return [self.data.queries[i] for i in self.queries]

    @property
    def product_texts(self) -> list[str]:
        """Of the searched products."""
        return [self.data.texts[i] for i in self.products]

    @property
    def judged(self) -> Judgements:
        """Judgements of the test queries, products numbered by their place among the searched ones."""
        judged = self.data.judged.select(self.queries)
        return Judgements(judged.offsets, np.searchsorted(self.products, judged.products), judged.grades)

    @property
    def fingerprint(self) -> str:
        """Of all that decides a figure."""
        return content_hash(self.data.fingerprint, self.data.relevant, self.scale.said, self.queries, self.products)

    def part(self, size: int | None, seed: int = 0) -> SearchProtocol:
        """The same queries over a part of the catalogue, which holds all their judged products.

        Args:
            size: products of the part; None for all.
            seed: of the draw.
        """
        needed = np.unique(self.data.judged.select(self.queries).products)
        products = part_of(len(self.data.texts), needed, size, seed)
        return SearchProtocol(self.data, self.scale, self.queries, products, self.left_out, self.counts)


def load_protocol(source: TaskSource) -> SearchProtocol:
    """Read what a source has.

    Args:
        source: a folder with Home Depot's file; or pairs with the columns query, product_id, title, and label (E/S/C/I)
            or relevance (1 to 3), and split (train, validation, test) if they bring their own; or the sample shop.

    Raises:
        DataMissing: if the folder has no Home Depot file.
        ValueError: if no test query has a relevant product, or the pairs cannot be used.

    Example:
        >>> protocol = load_protocol(TaskSource(sample=True))
        >>> len(protocol.queries) > 10, len(protocol.products) == len(protocol.data.texts)
        (True, True)
    """
    settings, scale = _settings(source)
    data = load_search_data(settings)
    tests = data.of(TEST, with_relevant=False)
    queries = data.of(TEST)
    if not len(queries):
        raise ValueError(
            f"{settings.pairs or 'sample shop'}: none of {len(tests)} test queries has a product of grade "
            f"{scale.relevant:g} or above; check labels and split"
        )
    counts = {
        "train_queries": len(data.of(TRAIN)),
        "test_queries": len(queries),
        "test_queries_without_relevant": len(tests) - len(queries),
        "judged_pairs": len(data.judged.select(queries).products),
    }
    return SearchProtocol(data, scale, queries, np.arange(len(data.texts)), len(tests) - len(queries), counts)


def _settings(source: TaskSource) -> tuple[SearchDataSettings, Scale]:
    if source.dataset is not None:
        return _of_dataset(source.dataset)
    if source.sample:
        return SearchDataSettings(relevant=ESCI_SCALE.relevant), ESCI_SCALE
    path = Path(source.data_dir or ".") / HOMEDEPOT
    if not path.is_file():
        raise DataMissing(f"no {HOMEDEPOT} in the data folder")
    columns = {"query": "search_term", "product_id": "product_uid", "relevance": "relevance"}
    settings = SearchDataSettings(
        pairs=str(path),
        encoding="latin-1",
        pair_columns=dict(columns),
        product_columns={"product_id": "product_uid", "title": "product_title"},
        split_rule="sha1_mod_10",
        relevant=HOMEDEPOT_SCALE.relevant,
    )
    return settings, HOMEDEPOT_SCALE


def _of_dataset(dataset: str) -> tuple[SearchDataSettings, Scale]:
    """Columns by the names that are there."""
    from rexbert_hf.catalog import read_records

    there = set(read_records(dataset, limit=1).column_names)
    graded = "relevance" in there
    scale = HOMEDEPOT_SCALE if graded else ESCI_SCALE
    columns: dict[str, str | list[str]] = {
        **PAIRS,
        ("relevance" if graded else "label"): "relevance" if graded else "label",
    }
    if "split" in there:
        columns["split"] = "split"
    if lost := sorted({*columns, "title"} - there):
        raise ValueError(
            f"{dataset}: no column {', '.join(lost)}; search pairs have query, product_id, title, and label or "
            "relevance"
        )
    titles: dict[str, str | list[str]] = {"product_id": "product_id", "title": "title"}
    settings = SearchDataSettings(pairs=dataset, pair_columns=columns, product_columns=titles, relevant=scale.relevant)
    return settings, scale
