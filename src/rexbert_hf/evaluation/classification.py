"""Product classification: place a title in a category hierarchy (E-BERT, table 2).

One decision worth knowing: of all paths that training knows the most likely one is predicted, so no prediction
contradicts the hierarchy. Under independent sigmoids that is the path with the highest sum of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.catalog import ReadReport, load_sample, read_records
from rexbert_hf.catalog.taxonomy_files import read_taxonomy
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData, hash_split
from rexbert_hf.evaluation.tuned_task import TunedTask, rare_brand_slice
from rexbert_hf.metrics.classification import label_sums, scores_of_sums

LEVELS = " > "
SAMPLE_PRODUCTS = 900
"""Products of the sample shop that are the default data."""


class ProductClassification(TunedTask):
    """Fashion titles in a tree of three levels; `fashion_styles/styles.csv.zip`.

    One label a node of the product's path ("Apparel", "Apparel > Topwear", ...), so every level counts; the pooled
    output with a dense layer, one sigmoid a node, binary cross entropy. Accuracy (all nodes right), micro and macro F1
    over nodes, macro over those that occur. Split 7:1:2 by the hash of the title (the paper's ratio). 5e-5, 5 epochs,
    batches of 32; the paper's grid (5e-6 to 5e-5, 2 to 5 epochs, picked on dev) as option.

    Data: 44 thousand titles, 170 paths, in place of the paper's 10,039 from Amazon, which are not public. The paper has
    accuracy 66.5, micro and macro F1 81.9 and 78.8 for BERT; 78.7, 90.4 and 90.9 for E-BERT.
    """

    name = "product_classification"
    title = "Product classification, fashion"
    paper = "E-BERT"
    data = "Amazon titles, 10,039 products, 133 categories (not public)"
    dataset_name = "`title`, `category_path` (list, or levels parted by >)"
    split = "7:1:2 by hash of the title"
    metric = "accuracy"
    comparable = "no: other products and categories"
    head: ClassVar[HeadName] = "multi_label"
    max_length = 64
    folder = "fashion_styles"
    caps = (2_000, 300, 1_000)
    small = Tuning((3e-4,), (4,), 32)
    full = Tuning((5e-5,), (5,), 32)
    slice_kinds = ("typos", "casing", "word_order", "units")

    def read_folder(self, folder: Path) -> TaskData:
        """One CSV; rows with a comma too many are left out and counted."""
        report = ReadReport()
        file = folder / "styles.csv.zip"
        rows = read_records(file, {"id": "id", "title": "productDisplayName", **_LEVEL_COLUMNS}, report=report)
        examples = [
            _example(row["title"], [row[name] for name in _LEVEL_COLUMNS], f"{file} product {row['id']}")
            for row in rows
            if (row["title"] or "").strip()
        ]
        left_out = report.bad + len(rows) - len(examples)
        return self._divided(examples, {"left_out": left_out})

    def _divided(self, examples: list[Example], counts: Mapping[str, int], notes: tuple[str, ...] = ()) -> TaskData:
        return TaskData(*hash_split(examples), labels=self.labels_of(examples), counts=counts, notes=notes)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Columns `title` and `category_path`."""
        path = row.get("category_path")
        if row.get("title") is None or path is None:
            raise ValueError(f"{where}: no title or no category_path; the columns are title, category_path")
        return _example(row["title"], path.split(LEVELS.strip()) if isinstance(path, str) else path, where)

    def read_sample(self) -> list[Example]:
        """Titles of the sample shop, in its tree."""
        rows = load_sample("products", size=SAMPLE_PRODUCTS)
        return [self.read_row(row, f"sample product {row['product_id']}") for row in rows]

    def decode(self, answers: Any, examples: Sequence[Example], data: TaskData) -> Sequence[Any]:
        """Label numbers of each example from its probabilities."""
        number = {label: i for i, label in enumerate(data.labels)}
        paths = sorted({tuple(number[one] for one in example.gold) for example in data.train})
        member = np.zeros((len(paths), len(number)))
        for row, path in enumerate(paths):
            member[row, list(path)] = 1.0
        likely = np.clip(np.asarray(answers, dtype=np.float64), 1e-12, 1 - 1e-12)
        best = np.argmax((np.log(likely) - np.log1p(-likely)) @ member.T, axis=1)
        return [paths[i] for i in best]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Whether all is right, and right, predicted and gold nodes, of each title."""
        number = {label: i for i, label in enumerate(data.labels)}
        gold, found = np.zeros((2, len(examples), len(number)), dtype=bool)
        for row, (example, predicted) in enumerate(zip(examples, predictions, strict=True)):
            gold[row, [number[one] for one in example.gold]] = True
            found[row, list(predicted)] = True
        nodes = [(gold & found).sum(axis=1), found.sum(axis=1), gold.sum(axis=1)]
        statistics = np.stack([(gold == found).all(axis=1), *nodes], axis=1).astype(np.float64)
        return statistics, scores_of_sums(label_sums(gold, found), len(examples))

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """Share of titles with all nodes right."""
        return np.asarray(sums)[..., 0] / n

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Paths of drawn training titles."""
        number = {label: i for i, label in enumerate(data.labels)}
        drawn = rng.integers(len(data.train), size=len(examples))
        return [[number[one] for one in data.train[i].gold] for i in drawn]

    def subsets(self, data: TaskData) -> dict[str, list[int]]:
        """Test titles of a rare brand."""
        return rare_brand_slice(data)


class OfferClassification(ProductClassification):
    """Offers of many shops; `pricerunner/pricerunner_aggregate.csv.gz`.

    Protocol of `product_classification`, split by the hash of the product, so that no product stands on two sides. The
    ten categories get the ancestors that Google's product taxonomy has for them, from `taxonomy/` beside.
    """

    name = "offer_classification"
    title = "Product classification, offers"
    split = "7:1:2 by hash of the product"
    folder = "pricerunner"
    slice_kinds = ("typos", "casing", "word_order", "units")

    def read_folder(self, folder: Path) -> TaskData:
        """One CSV without header, with Google's tree, where that is; rows that cannot be read are counted."""
        file = folder / "pricerunner_aggregate.csv.gz"
        columns = {"title": "title", "category": "category", "product": "cluster"}
        header = ["id", "title", "merchant", "cluster", "cluster_label", "category_id", "category"]
        report = ReadReport()
        rows = read_records(file, columns, header=header, report=report)
        tree = folder.parent / "taxonomy" / TAXONOMY_FILE
        ancestors = ancestors_of(sorted({name for name in rows["category"] if name}), tree) if tree.exists() else {}
        examples = [
            _example(
                row["title"], [*ancestors.get(row["category"], ()), row["category"]], f"{file}:{number}", row["product"]
            )
            for number, row in enumerate(rows, 1)
        ]
        counts = {"left_out": report.bad} if report.bad else {}
        return self._divided(examples, counts, () if ancestors else (f"no {tree.name}: categories have no ancestors",))


TAXONOMY_FILE = "taxonomy-with-ids.en-US.txt"
_LEVEL_COLUMNS = {"level_1": "masterCategory", "level_2": "subCategory", "level_3": "articleType"}
_OTHER_NAMES = {
    "CPUs": "Computer Processors",
    "TVs": "Televisions",
    "Fridges": "Refrigerators",
    "Fridge Freezers": "Refrigerators",
    "Microwaves": "Microwave Ovens",
}


def ancestors_of(categories: Sequence[str], tree: Path) -> dict[str, tuple[str, ...]]:
    """What stands above each category in Google's product taxonomy.

    Args:
        categories: PriceRunner's names.
        tree: the taxonomy's file.

    Raises:
        ValueError: if a category is not in the tree, or in two places.
    """
    found = {}
    paths = read_taxonomy(tree)
    for category in categories:
        matches = [path for path in paths if path[-1] == _OTHER_NAMES.get(category, category)]
        if len(matches) != 1:
            raise ValueError(f"{tree}: the category {category!r} is there {len(matches)} times, not once")
        found[category] = matches[0][:-1]
    return found


def _example(title: str, path: Sequence[str], where: str, key: str | None = None) -> Example:
    names = [name.strip() if isinstance(name, str) else "" for name in path]
    if not isinstance(title, str) or not title.strip() or not names or not all(names):
        raise ValueError(f"{where}: the title is empty, or a level of its path {path!r} is")
    nodes = [LEVELS.join(names[: depth + 1]) for depth in range(len(names))]
    return Example(Row(title, label=nodes, where=where), nodes, title if key is None else key)
