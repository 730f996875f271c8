"""Query to category: which department of a shop a search query belongs to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.catalog import load_sample
from rexbert_hf.catalog.escapes import listed
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.task import DataMissing, Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData, hash_split
from rexbert_hf.evaluation.tuned_task import TunedTask
from rexbert_hf.metrics.classification import label_sums, one_hot, scores_of_sums

FILE = "instant_search_demo_query_suggestions.json"
LEAST_QUERIES = 10


class QueryCategory(TunedTask):
    """Query to category: accuracy and macro-F1 over departments, split 7:1:2 by the hash of the query.

    Protocol: one text, one class, a linear head on the encoder; macro-F1 beside accuracy, because departments differ
    much in size. Local data are the query suggestions of a public electronics shop demo, each with the department that
    most of its hits lie in; departments with fewer than ten queries are left out and counted. No figures are
    published; always saying the largest department gives .19, drawn departments .10.

    `datasets` columns: query, category.
    """

    name, title, paper = "query_category", "Query to category", "beyond"
    data = "none published"
    dataset_name = "any with the columns query, category"
    split = "7:1:2 by hash of the query"
    metric = "accuracy"
    comparable = "no published figures"
    head = "sequence"
    max_length = 32
    folder = "algolia"
    caps = (1_600, 300, 1_000)
    small = Tuning((1e-4,), (4,), 16)
    full = Tuning((5e-5,), (8,), 16)
    slice_kinds = ("typos", "casing", "word_order", "units")
    version = 2

    def read_folder(self, folder: Path) -> TaskData:
        """Query suggestions with the department of most of their hits."""
        path = folder / FILE
        if not path.is_file():
            raise DataMissing(f"{self.name}: no {FILE} in {folder}")
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: no JSON ({error})") from None
        if not isinstance(rows, list):
            raise ValueError(f"{path}: no list of suggestions; fetch it again")
        examples, without = [], 0
        for number, row in enumerate(rows):
            department = _department(row, f"{path}, row {number}")
            without += department is None
            if department is not None:
                examples.append(self.example(row.get("query"), department, f"{path}, row {number}"))
        data = self.of_examples(examples)
        counts = {**data.counts, "without_category": without}
        return TaskData(data.train, data.dev, data.test, data.labels, counts, data.notes)

    def of_examples(self, examples: Sequence[Example]) -> TaskData:
        """Leave out small categories, and split.

        Args:
            examples: with category names as gold.

        Raises:
            ValueError: if no two categories are large enough.
        """
        sizes = Counter(one.gold for one in examples)
        labels = tuple(sorted(name for name, count in sizes.items() if count >= LEAST_QUERIES))
        if len(labels) < 2:
            raise ValueError(
                f"{self.name}: {len(labels)} categories have {LEAST_QUERIES} queries or more, 2 are needed"
            )
        kept = [one for one in examples if one.gold in labels]
        return TaskData(*hash_split(kept), labels, {"rare_category": len(examples) - len(kept)})

    def example(self, query: Any, category: Any, where: str) -> Example:
        """One example.

        Args:
            query: its text.
            category: its class.
            where: file and row.

        Raises:
            ValueError: if one of them is no text.
        """
        if not isinstance(query, str) or not query.strip() or not isinstance(category, str):
            raise ValueError(f"{where}: query {query!r} and category {category!r} must be texts")
        return Example(Row(query, label=category, where=where), category, query)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Make an example of a row with the columns query and category."""
        missing = [name for name in ("query", "category") if name not in row]
        if missing:
            raise ValueError(f"{where}: no column '{missing[0]}', only {listed(row)}")
        return self.example(row["query"], row["category"], where)

    def read_sample(self) -> list[Example]:
        """Queries of the sample shop with the department of the first exact match."""
        department = {row["product_id"]: row["category_path"][0] for row in load_sample("products")}
        found: dict[str, str] = {}
        for row in load_sample("query_products"):
            if row["label"] == "E":
                found.setdefault(row["query"], department[row["product_id"]])
        return [self.example(query, name, "sample shop") for query, name in found.items()]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Whether the category is right; macro-F1 over the categories that occur."""
        gold = np.array([data.labels.index(one.gold) for one in examples])
        said = np.asarray(predictions, dtype=np.int64)
        sums = label_sums(one_hot(gold, len(data.labels)), one_hot(said, len(data.labels)))
        scores = scores_of_sums(sums, len(examples))
        figures = {"accuracy": scores["accuracy"], "macro_f1": scores["macro_f1"]}
        return (gold == said).astype(np.float64)[:, None], figures

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Categories drawn from those of the training queries."""
        gold = [data.labels.index(one.gold) for one in data.train]
        return [gold[i] for i in rng.integers(0, len(gold), len(examples))]


def _department(row: Any, where: str) -> str | None:
    """The department of most exact hits; None where no hit has one."""
    try:
        found = row["instant_search"]["facets"]["exact_matches"]["hierarchicalCategories.lvl0"]
        return str(max(found, key=lambda one: one["count"])["value"]) if found else None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: no instant_search.facets.exact_matches ({error})") from None
