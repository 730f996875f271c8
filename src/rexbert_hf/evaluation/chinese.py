"""Chinese review categories: which kind of product a review is about (commercial text for m3BERT's languages).

One decision worth knowing: an encoder without Chinese in its vocabulary is measured all the same; it reads most
characters as unknown, and its figure says what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.catalog import ReadReport, load_sample, read_records
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData, hash_split
from rexbert_hf.evaluation.tuned_task import TunedTask
from rexbert_hf.metrics.classification import label_sums, one_hot, scores_of_sums

SAMPLE_REVIEWS = 600
"""Reviews of the sample shop that are the default data, half as many products."""


class ChineseReviews(TunedTask):
    """Reviews in Chinese of ten kinds of product; `chinese_reviews/online_shopping_10_cats.zip`.

    The pooled output with a dense layer over the kinds; accuracy and macro F1. Split 7:1:2 by the hash of the review.
    2e-5, 4 epochs, batches of 32. No published figures are known for this split.
    """

    name = "chinese_review_category"
    title = "Chinese review category"
    paper = "m3BERT (languages)"
    data = "in-house search logs (not public)"
    dataset_name = "`text`, `category`"
    split = "7:1:2 by hash of the review"
    metric = "accuracy"
    comparable = "no: a stand-in for its languages"
    head: ClassVar[HeadName] = "sequence"
    max_length = 128
    folder = "chinese_reviews"
    caps = (800, 150, 500)
    small = Tuning((1e-4,), (3,), 16)
    slice_kinds = ()

    def read_folder(self, folder: Path) -> TaskData:
        """One zipped CSV; reviews without text are left out and counted."""
        file = folder / "online_shopping_10_cats.zip"
        report = ReadReport()
        rows = read_records(file, {"text": "review", "category": "cat"}, format="csv", report=report)
        kept = [
            self.read_row(row, f"{file} review {number}")
            for number, row in enumerate(rows, 1)
            if (row["text"] or "").strip()
        ]
        counts = {"left_out": report.bad + len(rows) - len(kept)}
        return TaskData(*hash_split(kept), labels=self.labels_of(kept), counts=counts)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Columns `text` and `category`."""
        text, category = str(row.get("text") or ""), str(row.get("category") or "")
        if not text.strip() or not category.strip():
            raise ValueError(f"{where}: no text or no category; the columns are text, category")
        return Example(Row(text, label=category, where=where), category, text)

    def read_sample(self) -> list[Example]:
        """Invented reviews of six kinds of product."""
        rows = load_sample("chinese_reviews", size=SAMPLE_REVIEWS // 2)
        return [self.read_row(row, f"sample review {number}") for number, row in enumerate(rows)]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Whether each category is right."""
        gold = np.array([data.labels.index(example.gold) for example in examples])
        classes = len(data.labels)
        scores = scores_of_sums(label_sums(one_hot(gold, classes), one_hot(predictions, classes)), len(examples))
        right = (gold == np.asarray(predictions)).astype(np.float64)
        return right[:, None], {"accuracy": scores["accuracy"], "macro_f1": scores["macro_f1"]}

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[int]:
        """Categories of drawn training reviews."""
        return [data.labels.index(data.train[i].gold) for i in rng.integers(len(data.train), size=len(examples))]
