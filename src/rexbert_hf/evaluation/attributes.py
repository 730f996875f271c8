"""Attribute-value extraction: from a title to {attribute: value} (beyond the papers).

One decision worth knowing: values are compared letter by letter, and a value that no tag could have said (it begins
within a word, or lies within another value) stays in the gold set, so recall pays for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.catalog import load_sample
from rexbert_hf.catalog.attribute_files import AttributedTitle, attributed_title, read_attributed_titles
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.robustness import ALIGNED, perturb, perturb_words
from rexbert_hf.evaluation.shared_scores import SpanScores
from rexbert_hf.evaluation.task import TaskSource, Tuning
from rexbert_hf.evaluation.task_splits import NO_TEST, Example, TaskData, hash_split
from rexbert_hf.evaluation.tuned_task import TunedTask, rare_brand_slice
from rexbert_hf.evaluation.word_tags import borrowed_tags, place_values, split_words
from rexbert_hf.metrics.spans import spans_of_tags, tags_of_spans

SAMPLE_PRODUCTS = 500
"""Products of the sample shop that are the default data."""


class AttributeExtraction(SpanScores, TunedTask):
    """OA-Mine, also AE-110k and WDC PAVE in its form; `oa_mine/{train,test}.jsonl`.

    One tag a word, B- or I- with the attribute, by a dense layer over its first token; strict spans of tags become
    values, the title's own letters. Micro F1, precision and recall of (attribute, value) pairs. Published train and
    test, a tenth of train by the hash of the title is dev; 7:1:2 as option. 1e-4, 8 epochs, batches of 16, because a
    hundred tags have few examples each. Perturbed inputs change title and values alike.

    Published: F1 85 for GPT-4 on average over OA-Mine and AE-110k, the best fine-tuned encoder 5 points below
    (Brinkmann et al. 2024, who tell the model which attributes a category has; here nothing is told).
    """

    name = "attribute_extraction"
    title = "Attribute-value extraction"
    paper = "beyond them"
    data = "OA-Mine, 1,943 titles"
    dataset_name = "`title`, `attributes` (list of name, value)"
    split = "published train and test; dev is a tenth of train"
    metric = "f1"
    comparable = "nearly: published figures tell the model the attributes of the category"
    hub_task = "token-classification"
    head: ClassVar[HeadName] = "token"
    folder = "oa_mine"
    caps = (1_400, 150, 491)
    small = Tuning((3e-4,), (5,), 16)
    full = Tuning((1e-4,), (8,), 16)
    slice_kinds = ("typos", "casing", "units")
    version = 2
    _unsaid = 0

    def _read(self, source: TaskSource) -> TaskData:
        self._unsaid = 0
        data = super()._read(source)
        if not self._unsaid:
            return data
        note = f"{self._unsaid} values of product records are not in their titles: left out of the gold values"
        return replace(data, counts={**data.counts, "values_not_in_title": self._unsaid}, notes=(*data.notes, note))

    def read_folder(self, folder: Path) -> TaskData:
        """Two files of JSON lines."""
        train, dev, _ = hash_split([_example(one) for one in read_attributed_titles(folder / "train.jsonl")], NO_TEST)
        test = [_example(one) for one in read_attributed_titles(folder / "test.jsonl")]
        examples = [*train, *dev, *test]
        counts = {"values_without_place": sum(len(example.gold) for example in examples) - sum(map(_placed, examples))}
        return TaskData(train, dev, test, self.labels_of(examples), counts)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Columns `title` and `attributes`; product records have values that their titles do not say."""
        title = row.get("title")
        if not isinstance(title, str) or row.get("attributes") is None:
            raise ValueError(f"{where}: no title or no attributes; the columns are title, attributes")
        try:
            values = [(one["name"], one["value"]) for one in row["attributes"]]
        except (KeyError, TypeError):
            raise ValueError(f"{where}: attributes are a list of name and value") from None
        said = values
        if "product_id" in row:
            said = [(name, value) for name, value in values if not isinstance(value, str) or _says(title, value)]
        self._unsaid += len(values) - len(said)
        return _example(attributed_title(title, said, where))

    def read_sample(self) -> list[Example]:
        """Titles of the sample shop with brand and the attributes that they say."""
        rows = load_sample("products", size=SAMPLE_PRODUCTS)
        with_brand = (
            {**row, "attributes": [{"name": "brand", "value": row["brand"]}, *row["attributes"]]} for row in rows
        )
        return [self.read_row(row, f"sample product {row['product_id']}") for row in with_brand]

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """O, and B and I of each attribute."""
        names = sorted({name for example in examples for name, _ in example.gold})
        return ("O", *(f"{prefix}-{name}" for name in names for prefix in "BI"))

    def decode(self, answers: Any, examples: Sequence[Example], data: TaskData) -> Sequence[Any]:
        """(attribute, value) of the strict spans."""
        return [_values(example, tags) for example, tags in zip(examples, answers, strict=True)]

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Values where a drawn training title has them."""
        return self.decode(borrowed_tags(examples, data.train, rng), examples, data)

    def subsets(self, data: TaskData) -> dict[str, list[int]]:
        """Test titles of a rare brand."""
        return rare_brand_slice(data)

    def perturbed(self, example: Example, kind: str) -> Example:
        """Title and values change alike; a value that is not in the changed title any more is no gold value."""
        if kind in ALIGNED:
            return _rewritten(example, perturb_words(example.row.text, kind))
        title, *values = perturb([example.key, *(value for _, value in example.gold)], kind)
        pairs = zip((name for name, _ in example.gold), values, strict=True)
        kept = [(name, value) for name, value in pairs if value in title]
        return _example(AttributedTitle(title, tuple(kept), None, example.row.where or ""))


def _example(one: AttributedTitle) -> Example:
    words, places = split_words(one.title)
    spans, _ = place_values(one.title, one.values, places)
    return Example(Row(words, label=tags_of_spans(spans, len(words)), where=one.where), list(one.values), one.title)


def _says(title: str, value: str) -> bool:
    """Whether a title holds a value as whole words; the size "M" is not in "Mug"."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", title) is not None


def _placed(example: Example) -> int:
    return len(spans_of_tags(example.row.label))


def _values(example: Example, tags: Sequence[str]) -> list[tuple[str, str]]:
    places = split_words(example.key)[1]
    return [(name, example.key[places[first][0] : places[end - 1][1]]) for first, end, name in spans_of_tags(tags)]


def _rewritten(example: Example, words: Sequence[str]) -> Example:
    """The example with other words in the same places: its values are what then stands where they stood.

    Values without a place of their own stay as they are: on changed inputs too, no tag can say them.
    """
    title, at = "", 0
    places: list[tuple[int, int]] = []
    for (start, end), word in zip(split_words(example.key)[1], words, strict=True):
        title += example.key[at:start]
        places.append((len(title), len(title) + len(word)))
        title, at = title + word, end
    title += example.key[at:]
    gold = [
        (name, title[places[first][0] : places[end - 1][1]]) for first, end, name in spans_of_tags(example.row.label)
    ]
    _, unplaced = place_values(example.key, example.gold, split_words(example.key)[1])
    return Example(example.row._replace(text=list(words)), [*gold, *unplaced], title)
