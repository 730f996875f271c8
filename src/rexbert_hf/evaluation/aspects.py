"""Aspect extraction: which words of a review sentence name an aspect (E-BERT, table 2).

One decision worth knowing: spans are strict. A predicted I that follows no B is no aspect, whatever it touches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.catalog import load_sample
from rexbert_hf.catalog.aspect_files import ASPECT_TAGS, TaggedSentence, read_tagged_sentences, tagged_sentence
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.shared_scores import SpanScores
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData
from rexbert_hf.evaluation.tuned_task import TunedTask
from rexbert_hf.evaluation.word_tags import borrowed_tags, split_words, words_of_place
from rexbert_hf.metrics.spans import spans_of_tags, tags_of_spans

SAMPLE_PRODUCTS = 300
"""Products of the sample shop whose reviews are the default data, two reviews each."""


class AspectExtraction(SpanScores, TunedTask):
    """Laptop aspects; `semeval14_laptop/ae/{train,dev,test}.json`.

    One tag of B, I, O a word, by a dense layer over its first token; words are joined by blanks, so byte-level BPE sees
    the blanks of pre-training. F1, precision and recall over strict spans. Published splits (Xu et al. 2019, who hold
    150 of SemEval's training sentences out); 7:1:2 by the hash of the sentence as option (the paper's ratio). 2e-5, 4
    epochs, batches of 32; the paper's grid (5e-6 to 5e-5, 2 to 5 epochs, picked on dev) as option.

    Published: F1 84.3 for BERT post-trained on reviews (Xu et al. 2019, these splits); the paper has 83.9 for BERT and
    88.4 for E-BERT, on its own split.
    """

    name = "aspect_extraction"
    title = "Review aspect extraction"
    paper = "E-BERT"
    data = "SemEval 2014 task 4, laptops"
    dataset_name = "`tokens`, `tags` (lists)"
    split = "published: 2,895 / 150 / 800 sentences"
    metric = "f1"
    comparable = "nearly: the paper divides 7:1:2; the splits are those of Xu et al. 2019"
    hub_task = "token-classification"
    head: ClassVar[HeadName] = "token"
    folder = "semeval14_laptop/ae"
    caps = (1_200, 150, 500)
    small = Tuning((1e-4,), (3,), 16)

    def read_folder(self, folder: Path) -> TaskData:
        """Three JSON files."""
        files = (read_tagged_sentences(folder / f"{part}.json") for part in ("train", "dev", "test"))
        train, dev, test = ([_example(one) for one in rows] for rows in files)
        return TaskData(train, dev, test, ASPECT_TAGS)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Columns `tokens` and `tags`."""
        if row.get("tokens") is None or row.get("tags") is None:
            raise ValueError(f"{where}: no tokens or no tags; the columns are tokens, tags")
        return _example(tagged_sentence(row["tokens"], row["tags"], where))

    def read_sample(self) -> list[Example]:
        """Whole reviews with the aspects that they talk about."""
        return [_review(row) for row in load_sample("reviews", size=SAMPLE_PRODUCTS)]

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """B, I and O."""
        return ASPECT_TAGS

    def decode(self, answers: Any, examples: Sequence[Example], data: TaskData) -> Sequence[Any]:
        """Strict spans of the predicted tags."""
        return [spans_of_tags(tags) for tags in answers]

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Spans of drawn training sentences."""
        return [spans_of_tags(tags) for tags in borrowed_tags(examples, data.train, rng)]


def _example(one: TaggedSentence) -> Example:
    text = Row(list(one.words), label=list(one.tags), where=one.where)
    return Example(text, spans_of_tags(one.tags), " ".join(one.words))


def _review(row: Mapping[str, Any]) -> Example:
    words, places = split_words(row["text"])
    where = f"sample review {row['review_id']}"
    found = [(words_of_place(places, one["start"], one["end"]), one["term"]) for one in row["aspects"]]
    lost = next((term for place, term in found if place is None), None)
    if lost is not None:
        raise ValueError(f"{where}: the aspect {lost!r} does not fit the words of its text")
    spans = [(*place, "") for place, _ in found if place]
    return _example(TaggedSentence(tuple(words), tuple(tags_of_spans(spans, len(words))), where))
