"""What the search tasks read: a catalogue, test queries and graded judgements, with the scales that go with them.

Three kinds of data: Home Depot's file (relevance 1 to 3), pairs with ESCI labels, and the sample shop, which has ESCI
labels too. The scale says which grade is exact, substitute and relevant, and which gains nDCG takes: gains differ
between publications (ESCI's organisers 1/.1/.01/0, RexBERT's script 1/.66/.33/0), so every figure names its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value

from rexbert_hf.catalog import LABELS, read_label, read_records
from rexbert_hf.evaluation.esci_files import esci_table, is_esci
from rexbert_hf.evaluation.task import DataMissing, TaskSource, content_hash
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.pairs.events import QuerySplit
from rexbert_hf.retrieval.training.evaluator import exponential_gain, searched_products
from rexbert_hf.retrieval.training.search_data import (
    TEST,
    TRAIN,
    SearchData,
    SearchDataSettings,
    load_search_data,
)

logger = logging.getLogger(__name__)

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

LOG_SCALE = Scale(
    relevant=1.0,
    exact=1.0,
    substitute=0.5,
    gains={"bought1/shown0": plain_gain},
    said="a click log: relevant (E) is what was bought for the query; O is what was shown and left alone, and what was "
    "never shown; there is no S",
)


@dataclass(frozen=True)
class SearchProtocol:
    """Test queries over a catalogue.

    Attributes:
        data: catalogue, all queries, judgements.
        scale: what grades mean.
        queries: numbers of the test queries that have a relevant product.
        products: numbers of the products that are searched, sorted.
        counts: for the report.
    """

    data: SearchData
    scale: Scale
    queries: np.ndarray
    products: np.ndarray
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
        products = searched_products(self.data, self.data.judged.select(self.queries), size, seed)
        return SearchProtocol(self.data, self.scale, self.queries, products, self.counts)


def load_protocol(source: TaskSource) -> SearchProtocol:
    """Read what a source has.

    Args:
        source: a folder with Home Depot's file; or pairs with the columns query, product_id, title or product_title,
            and label or esci_label (E/S/C/I) or relevance (1 to 3), and split (train, validation, test) if they bring
            their own; or a folder with ESCI's two files, or one that recipes/build_pairs.py wrote; or the
            sample shop.

    Raises:
        DataMissing: if the folder has no Home Depot file.
        ValueError: if no test query has a relevant product, or the pairs cannot be used.

    Example:
        >>> protocol = load_protocol(TaskSource(sample=True))
        >>> len(protocol.queries) > 10, len(protocol.products) == len(protocol.data.texts)
        (True, True)
    """
    with temporary_folder() as folder:
        settings, scale = _settings(source, Path(folder))
        data = load_search_data(settings)
    tests = data.of(TEST, with_relevant=False)
    queries = data.of(TEST)
    if not len(queries):
        raise ValueError(
            f"{source.dataset or settings.pairs or 'sample shop'}: none of {len(tests)} test queries has a product of "
            f"grade {scale.relevant:g} or above; check labels and split"
        )
    judged = data.judged.select(queries)
    counts = {
        "train_queries": len(data.of(TRAIN)),
        "test_queries": len(queries),
        "test_queries_without_relevant": len(tests) - len(queries),
        "judged_pairs": len(judged.products),
    }
    return SearchProtocol(data, scale, queries, searched_products(data, judged), counts)


def _settings(source: TaskSource, folder: Path) -> tuple[SearchDataSettings, Scale]:
    if source.dataset is not None and is_esci(source.dataset):
        return _of_dataset(_one_file(source.dataset, folder))
    if source.dataset is not None and (Path(source.dataset) / "products.parquet").is_file():
        return _of_log(Path(source.dataset)), LOG_SCALE
    if source.dataset is not None:
        return _of_dataset(source.dataset)
    if source.sample:
        return SearchDataSettings(relevant=ESCI_SCALE.relevant), ESCI_SCALE
    path = Path(source.data_dir or ".") / HOMEDEPOT
    if not path.is_file():
        raise DataMissing(f"no {HOMEDEPOT} in the data folder")
    columns = {"query": "search_term", "product_id": "product_uid", "relevance": "relevance"}
    kind = Features({"relevance": Value("float64")})
    graded = read_records(path, {"relevance": "relevance"}, features=kind, encoding="latin-1")
    _check_grades(graded["relevance"][:], True, str(path))
    settings = SearchDataSettings(
        pairs=str(path),
        encoding="latin-1",
        pair_columns=dict(columns),
        product_columns={"product_id": "product_uid", "title": "product_title"},
        split_rule="sha1_mod_10",
        relevant=HOMEDEPOT_SCALE.relevant,
    )
    return settings, HOMEDEPOT_SCALE


def _of_log(folder: Path) -> SearchDataSettings:
    """What recipes/build_pairs.py wrote of a shop's own log, with its split; random products are no judgements."""
    return SearchDataSettings(
        pairs=str(folder / "pairs"), products=str(folder / "products.parquet"), relevant=LOG_SCALE.relevant
    )


def _one_file(dataset: str, folder: Path) -> str:
    """ESCI's two files as one of pairs; a tenth of the training queries, by hash, is the validation split."""
    table = esci_table(dataset).drop_columns(["row"])
    parts = QuerySplit(held_out=0.2)
    splits = [
        "validation" if split == "train" and parts.of(query) == "validation" else split
        for split, query in zip(table["split"].to_pylist(), table["query"].to_pylist(), strict=True)
    ]
    place = table.column_names.index("split")
    pq.write_table(table.set_column(place, "split", pa.array(splits)), folder / "pairs.parquet")
    return str(folder / "pairs.parquet")


SPELLINGS = {"title": ("title", "product_title"), "label": ("label", "esci_label")}
"""Our name of a column -> names that data sets have for it."""


def _of_dataset(dataset: str) -> tuple[SearchDataSettings, Scale]:
    """Columns by the names that are there."""
    if any((Path(dataset) / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        raise ValueError(f"{dataset}: search reads files of pairs, not what save_to_disk wrote: give it to_parquet's")
    there = read_records(dataset, limit=1).column_names
    theirs = {ours: next((name for name in names if name in there), ours) for ours, names in SPELLINGS.items()}
    graded = "relevance" in there
    scale, grade = (HOMEDEPOT_SCALE, "relevance") if graded else (ESCI_SCALE, "label")
    columns: dict[str, str | list[str]] = {**PAIRS, grade: theirs.get(grade, grade)}
    if "split" in there:
        columns["split"] = "split"
    else:
        logger.warning("%s: no column split, so its queries are divided .8, .1, .1 by hash", dataset)
    if lost := sorted({*(str(name) for name in columns.values()), theirs["title"]} - set(there)):
        raise ValueError(
            f"{dataset}: no column {', '.join(lost)}; search pairs have query, product_id, title (or product_title), "
            "and label (or esci_label) or relevance"
        )
    kind = Features({grade: Value("float64" if graded else "string")})
    _check_grades(read_records(dataset, {grade: theirs.get(grade, grade)}, features=kind)[grade][:], graded, dataset)
    titles: dict[str, str | list[str]] = {"product_id": "product_id", "title": theirs["title"]}
    settings = SearchDataSettings(pairs=dataset, pair_columns=columns, product_columns=titles, relevant=scale.relevant)
    return settings, scale


def _check_grades(grades: Sequence[Any], graded: bool, dataset: str) -> None:
    """A number on another scale, or a label of another set, would give figures that look right.

    Raises:
        ValueError: with the row.
    """
    for row, grade in enumerate(grades):
        if graded and grade is not None and not 1.0 <= grade <= 3.0:
            raise ValueError(
                f"{dataset}, row {row}: the relevance {grade:g} is outside 1 (irrelevant) to 3 (exact): map it to that "
                "scale, or give a column label (E, S, C, I)"
            )
        if not graded and not _is_grade(grade):
            raise ValueError(f"{dataset}, row {row}: the label {grade!r} is outside the set (E, S, C, I)")


def _is_grade(label: Any) -> bool:
    """Whether a label is one of ESCI's, or none; a click log's numbers are no grades: "bought" is not "exact"."""
    try:
        return read_label(label) in (None, *LABELS)
    except ValueError:
        return False
