"""Review QA: find the answer to a question in a review (E-BERT, table 2).

One decision worth knowing: answers are compared as SQuAD compares them, by normalised words; where a question has
several, the first one is learnt and the best one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.catalog import load_sample
from rexbert_hf.catalog.question_files import AnsweredQuestion, question_of_row, read_squad, read_subjqa
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.robustness import perturb
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData
from rexbert_hf.evaluation.tuned_task import TunedTask
from rexbert_hf.evaluation.word_tags import split_words
from rexbert_hf.metrics.squad import SQUAD_COLUMNS, harmonic_f1, squad_scores

SAMPLE_QUESTIONS = 500
"""Products of the sample shop that the default data ask about, one question each."""


class ReviewQA(TunedTask):
    """Questions about laptops, answered in reviews; `review_rc_laptop/{train,dev,test}.json` in SQuAD's form.

    Question and review in one input of 384 tokens, longer reviews in windows that overlap by half; the most likely
    start and end (Devlin et al. 2019). F1 is SQuAD 1.1's mean over questions; `harmonic_f1`, of mean precision and mean
    recall, is what most rows of the paper's table hold. Published splits; 7:1:2 by the hash of the review as option.
    2e-5, 4 epochs, batches of 32; the paper's grid (5e-6 to 5e-5, 2 to 5 epochs, picked on dev) as option. Perturbed
    inputs change the question.

    Data: ReviewRC (Xu et al. 2019) in place of the paper's, which are not public. The paper has F1 60.7 and EM 40.2 for
    BERT, 68.8 and 45.4 for E-BERT, on its own.
    """

    name = "review_qa"
    title = "Review QA, laptops"
    paper = "E-BERT"
    data = "Amazon QA, 8,967 questions (not public)"
    dataset_name = "`question`, `context`, `answers` as in SQuAD"
    split = "published: 816 / 199 / 351 questions"
    metric = "f1"
    comparable = "no: other questions; with Xu et al. 2019 under the full budget"
    hub_task = "question-answering"
    head: ClassVar[HeadName] = "span"
    max_length = 384
    folder = "review_rc_laptop"
    caps = (500, 100, 351)
    small = Tuning((1e-4,), (3,), 16)

    def read_folder(self, folder: Path) -> TaskData:
        """Three files in SQuAD's form."""
        train, dev, test = ([_example(one) for one in read_squad(folder / f"{part}.json")] for part in _PARTS)
        return TaskData(train, dev, test)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Columns `question`, `context`, `answers`."""
        return _example(question_of_row(row, where))

    def read_sample(self) -> list[Example]:
        """Questions for an attribute of a product, and what an owner wrote."""
        rows = load_sample("questions", size=SAMPLE_QUESTIONS)
        return [self.read_row(row, f"sample question {number}") for number, row in enumerate(rows)]

    def decode(self, answers: Any, examples: Sequence[Example], data: TaskData) -> Sequence[str]:
        """Texts of the answers."""
        pairs = zip(answers, examples, strict=True)
        return ["" if answer is None else (example.row.pair or "")[slice(*answer)] for answer, example in pairs]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """SQuAD's scores of each question."""
        scores = squad_scores(predictions, [example.gold for example in examples])
        figures = dict(zip(SQUAD_COLUMNS, scores.mean(axis=0).tolist(), strict=True))
        return scores, {**figures, "harmonic_f1": harmonic_f1(scores)}

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """Mean F1."""
        return np.asarray(sums)[..., SQUAD_COLUMNS.index("f1")] / n

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[str]:
        """A span of whole words, as long as the answer to a drawn training question, anywhere in the review."""
        found = []
        for example in examples:
            borrowed = data.train[rng.integers(len(data.train))].gold[0]
            places = split_words(example.row.pair or "")[1]
            length = min(len(places), max(1, len(split_words(borrowed)[1])))
            first = int(rng.integers(len(places) - length + 1))
            found.append((example.row.pair or "")[places[first][0] : places[first + length - 1][1]])
        return found

    def perturbed(self, example: Example, kind: str) -> Example:
        """The question changes; the review, which answers are measured against, stays."""
        return example._replace(row=example.row._replace(text=perturb([str(example.row.text)], kind)[0]))


class ElectronicsQA(ReviewQA):
    """SubjQA's electronics, the questions with an answer; `subjqa_electronics/{train,dev,test}.csv`.

    Protocol of `review_qa`. Annotations of one question and review are one question with several answers. An answer is
    what the review says where the annotator pointed; annotations with other letters than stand there are left out and
    counted, and so is the word for "no answer" at the end of every review.
    """

    name = "review_qa_electronics"
    title = "Review QA, electronics"
    split = "published, its answerable questions"
    comparable = "no: other questions, and only those with an answer"
    folder = "subjqa_electronics"
    caps = (300, 60, 150)
    small = Tuning((1e-4,), (2,), 8)
    slice_kinds = ("typos",)

    def read_folder(self, folder: Path) -> TaskData:
        """Three CSV files; what is left out is counted."""
        files = [read_subjqa(folder / f"{part}.csv") for part in _PARTS]
        counts = {
            "unanswered": sum(one.unanswered for one in files),
            "unmatched_spans": sum(one.unmatched for one in files),
        }
        note = "answerable questions only; annotated spans whose letters are not those of the review are left out"
        train, dev, test = ([_example(question) for question in one.questions] for one in files)
        return TaskData(train, dev, test, counts=counts, notes=(note,))


_PARTS = ("train", "dev", "test")


def _example(one: AnsweredQuestion) -> Example:
    return Example(Row(one.question, one.context, one.answers[0], one.where), one.texts(), one.context)
