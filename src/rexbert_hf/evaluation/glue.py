"""GLUE: nine tasks of general language understanding, with the official metrics.

Protocol (Wang et al. 2018; the RexBERT paper reports GLUE and publishes no protocol, so this is the usual one):
fine-tune a linear head on each task alone, choose on held-out training rows, report the dev set, because labels of the
test sets are not public. `--tuning.learning_rates 1e-5 3e-5 5e-5 8e-5 --tuning.epochs 2 3 5 10` is the usual grid. Sets
that the local files split otherwise are in the docstrings of the tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.catalog.escapes import listed
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.glue_files import GLUE_FILES, GlueFiles, glue_parts, glue_rows
from rexbert_hf.evaluation.shared_scores import GradeScores
from rexbert_hf.evaluation.task import DataMissing, TaskSource, Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData, dataset_examples, drawn, hash_split
from rexbert_hf.evaluation.tuned_task import TunedTask
from rexbert_hf.metrics.binary import accuracy_of_sums, binary_counts, f1_of_sums, matthews_of_sums

_SPLITS = {"train": "train", "validation": "test", "validation_matched": "test"}


class GlueTask(TunedTask):
    """What the nine tasks share.

    Attributes:
        task: name of its folder below `glue`.
        subset: its name in the `datasets` data set.
        columns: text and second text in the `datasets` data set.
        classes: names in the order of their numbers; none for numbers.
    """

    task: ClassVar[str]
    subset: ClassVar[str]
    columns: ClassVar[tuple[str, str | None]] = ("sentence1", "sentence2")
    classes: ClassVar[tuple[str, ...]] = ("not_entailment", "entailment")
    paper = "RexBERT"
    domain = False
    keeps_splits = True
    head: ClassVar[HeadName] = "sequence"
    metric = "accuracy"
    split = "published train and dev; val.tsv (or dev beside test) chooses, else a tenth of train by hash"
    comparable = "yes, GLUE dev set (full budget)"
    small = Tuning((5e-5,), (3,), 16)
    full = Tuning((3e-5,), (3,), 32)
    caps = (1_200, 200, 1_000)
    slice_kinds = ()

    def __init_subclass__(cls) -> None:
        """Say where the task's files are."""
        cls.folder = f"glue/{cls.task}"

    def load(self, source: TaskSource) -> TaskData:
        """Read the data; GLUE's splits are kept, whatever the source says of splits."""
        return super().load(replace(source, resplit=False))

    def _read(self, source: TaskSource) -> TaskData:
        if source.dataset is not None:
            name = self._hub_name(source.dataset)
            train, dev, test = dataset_examples(name, self.read_row, _SPLITS).values()
            return TaskData(train, dev, test, labels=self.classes)
        if source.data_dir is not None:
            folder = Path(source.data_dir) / "glue" / self.task
            if not folder.is_dir():
                raise DataMissing(f"{self.name}: no folder glue/{self.task} in {source.data_dir}")
            return self.read_folder(folder)
        raise DataMissing(f"{self.name}: the sample shop has no GLUE; give a data folder or a dataset (nyu-mll/glue)")

    def _hub_name(self, dataset: str) -> str:
        """With the task's configuration, where the caller named none."""
        if ":" in dataset or Path(dataset).exists():
            return dataset
        name, at, revision = dataset.partition("@")
        return f"{name}:{self.subset}{at}{revision}"

    def comparison(self, source: TaskSource) -> str:
        """As `Task.comparison`: a data set's labelled part is GLUE's dev set, for all nine."""
        found = super().comparison(source)
        return "yes, GLUE dev set (full budget)" if source.dataset is not None and found == self.comparable else found

    def is_benchmark(self, dataset: str) -> bool:
        """As `Task.is_benchmark`, with the configuration or without."""
        return super().is_benchmark(self._hub_name(dataset))

    def measured_split(self, source: TaskSource) -> str:
        """As `Task.measured_split`: GLUE's dev set, or the test set of an original release."""
        if source.dataset is not None or source.data_dir is None:
            return "validation"
        test_path = glue_parts(Path(source.data_dir) / self.folder, GLUE_FILES[self.task])[2]
        return "test" if "test" in test_path.name else "validation"

    def read_folder(self, folder: Path) -> TaskData:
        """Read the published files."""
        files = GLUE_FILES[self.task]
        train_path, dev_path, test_path = glue_parts(folder, files)
        short: list[str] = []
        train, test = (list(self._file(path, files, train_path, short)) for path in (train_path, test_path))
        if dev_path is None:
            train, dev, _ = hash_split(train, (0.9, 0.1, 0.0))
        else:
            dev = list(self._file(dev_path, files, train_path, short))
        test += self.further_test(folder, short)
        return TaskData(train, dev, test, self.classes, {"short_lines": len(short)} if short else {})

    def further_test(self, folder: Path, short: list[str]) -> list[Example]:
        """Examples of a second test set; none.

        Args:
            folder: of the task.
            short: places of lines that are left out are added here.
        """
        return []

    def _file(self, path: Path, files: GlueFiles, train: Path, short: list[str]) -> Iterator[Example]:
        for where, text, pair, label in glue_rows(path, files, train, short):
            yield self.example(text, pair, label, where)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Make an example of a `datasets` row."""
        missing = [name for name in (*self.columns, "label") if name is not None and name not in row]
        if missing:
            raise ValueError(f"{where}: no column '{missing[0]}', only {listed(row)}")
        pair = None if self.columns[1] is None else row[self.columns[1]]
        return self.example(row[self.columns[0]], pair, row["label"], where)

    def read_sample(self) -> list[Example]:
        """There is none."""
        raise DataMissing(f"{self.name}: the sample shop has no GLUE")

    def example(self, text: str, pair: str | None, label: Any, where: str) -> Example:
        """One example, its label as a name or a number.

        Args:
            text: of the row.
            pair: of the row.
            label: as it was read.
            where: file and line.

        Raises:
            ValueError: if the label is none of the task's.
        """
        name = str(label)
        if name.isdecimal() and int(name) < len(self.classes):
            name = self.classes[int(name)]
        if name not in self.classes:
            raise ValueError(f"{where}: the label {label!r} is outside the set ({', '.join(self.classes)})")
        return Example(Row(text, pair, name, where), self.classes.index(name), f"{text}\n{pair}")

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Counts of a binary task."""
        counts = binary_counts([one.gold for one in examples], predictions)
        return counts, self.figures(counts.sum(axis=0))

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """All figures from the sums of counts.

        Args:
            sums: of `binary_counts`.
        """
        return {self.metric: float(self.score_sums(sums, 1)), "accuracy": float(accuracy_of_sums(sums))}

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """Accuracy."""
        return accuracy_of_sums(sums)

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Labels drawn from those of the training rows."""
        gold = [one.gold for one in data.train]
        return [gold[i] for i in rng.integers(0, len(gold), len(examples))]


class CoLA(GlueTask):
    """Corpus of Linguistic Acceptability: is a sentence grammatical? Matthews' correlation.

    Published: BERT-base 52.1 (test set), ModernBERT-base 65.1 (dev set).
    """

    name, title, task, subset = "glue_cola", "CoLA (GLUE)", "CoLA", "cola"
    data, dataset_name, metric = "CoLA", "nyu-mll/glue:cola", "matthews"
    columns, classes = ("sentence", None), ("unacceptable", "acceptable")
    max_length = 64
    caps = (2_400, 400, 1_043)

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """Matthews' correlation."""
        return matthews_of_sums(sums)


GLUE_DEV_SET = 872
"""Sentences of SST-2's dev set; its own test set has 1,821."""


class SST2(GlueTask):
    """Stanford Sentiment Treebank, phrases to train on and sentences to test: accuracy.

    Published: BERT-base 93.5 (test set), ModernBERT-base 96.0 (dev set).
    """

    name, title, task, subset = "glue_sst2", "SST-2 (GLUE)", "SST-2", "sst2"
    data, dataset_name = "SST-2", "nyu-mll/glue:sst2"
    columns, classes = ("sentence", None), ("negative", "positive")
    max_length = 64
    caps = (2_400, 400, 872)

    def measured_split(self, source: TaskSource) -> str:
        """As `GlueTask.measured_split`: mirrors have GLUE's dev set as test.tsv, and a dev.tsv cut from train."""
        split = super().measured_split(source)
        if split == "validation":
            return split
        path = Path(source.data_dir or ".") / self.folder / "test.tsv"
        rows = sum(1 for _ in glue_rows(path, GLUE_FILES[self.task], path, []))
        return "validation" if rows == GLUE_DEV_SET else split


class MRPC(GlueTask):
    """Microsoft Research Paraphrase Corpus: do two sentences say the same? F1 and accuracy.

    The original release is measured on its test set (1,725 pairs, labels public); GLUE cut its dev set from train by a
    list of ids that the release lacks. Published: BERT-base F1 88.9 (test set); calling all pairs equivalent gives .80.
    """

    name, title, task, subset = "glue_mrpc", "MRPC (GLUE)", "MRPC", "mrpc"
    data, dataset_name, metric = "MRPC", "nyu-mll/glue:mrpc", "f1"
    classes = ("not_equivalent", "equivalent")
    split = "published train and test of the original release; a tenth of train, by hash, chooses"
    comparable = "close: the test set of the original release, not GLUE's dev set"

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """F1 of the equivalent pairs."""
        return f1_of_sums(sums)


class QQP(GlueTask):
    """Quora Question Pairs: are two questions the same? F1 and accuracy."""

    name, title, task, subset = "glue_qqp", "QQP (GLUE)", "QQP", "qqp"
    data, dataset_name, metric = "QQP", "nyu-mll/glue:qqp", "f1"
    columns, classes = ("question1", "question2"), ("not_duplicate", "duplicate")

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """F1 of the duplicates."""
        return f1_of_sums(sums)


class QNLI(GlueTask):
    """Question NLI: does a sentence answer the question? Accuracy."""

    name, title, task, subset = "glue_qnli", "QNLI (GLUE)", "QNLI", "qnli"
    data, dataset_name = "QNLI", "nyu-mll/glue:qnli"
    columns, classes = ("question", "sentence"), ("entailment", "not_entailment")


class RTE(GlueTask):
    """Recognizing Textual Entailment: accuracy.

    Published: BERT-base 66.4 (test set), ModernBERT-base 87.4 (dev set, from an MNLI checkpoint). all-MiniLM-L6-v2 has
    seen NLI pairs in its training.
    """

    name, title, task, subset = "glue_rte", "RTE (GLUE)", "RTE", "rte"
    data, dataset_name = "RTE", "nyu-mll/glue:rte"
    classes = ("entailment", "not_entailment")
    split = "published train without GLUE's own val part, which chooses, and dev"


class WNLI(GlueTask):
    """Winograd NLI: accuracy. Its dev set contradicts its train set, so the majority class (.563) is hard to beat."""

    name, title, task, subset = "glue_wnli", "WNLI (GLUE)", "WNLI", "wnli"
    data, dataset_name = "WNLI", "nyu-mll/glue:wnli"


class MNLI(GlueTask):
    """Multi-genre NLI: accuracy on the matched genres, and `accuracy_mismatched` on the others; caps are for each."""

    name, title, task, subset = "glue_mnli", "MNLI (GLUE)", "MNLI", "mnli"
    data, dataset_name = "MNLI", "nyu-mll/glue:mnli"
    columns, classes = ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")
    version = 2

    def capped(self, data: TaskData) -> TaskData:
        """As `TunedTask.capped`, matched and mismatched rows each for themselves."""
        train, dev, test = self.caps
        parts = [[one for one in data.test if _mismatched(one) is side] for side in (False, True)]
        return replace(
            data.capped(train, dev, len(data.test)), test=[one for part in parts for one in drawn(part, test)]
        )

    def sizes(self, data: TaskData) -> dict[str, int]:
        """As `TunedTask.sizes`: the matched rows are the test split."""
        other = sum(map(_mismatched, data.test))
        found = {**super().sizes(data), "test": len(data.test) - other}
        return found | ({"test_mismatched": other} if other else {})

    def _read(self, source: TaskSource) -> TaskData:
        data = super()._read(source)
        if source.dataset is not None and not any(map(_mismatched, data.test)):
            name = self._hub_name(source.dataset)
            parts = dataset_examples(name, self.read_row, {"validation_mismatched": "test"})
            data.test.extend(one._replace(gold=(one.gold, False)) for one in parts["test"])
        return data

    def further_test(self, folder: Path, short: list[str]) -> list[Example]:
        """The mismatched genres, where they are there."""
        path = folder / "dev_mismatched.tsv"
        found = self._file(path, GLUE_FILES[self.task], path, short) if path.is_file() else iter(())
        return [one._replace(gold=(one.gold, False)) for one in found]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Right and all of the matched, then of the mismatched rows."""
        matched = np.array([not _mismatched(one) for one in examples])
        gold = np.array([one.gold[0] if _mismatched(one) else one.gold for one in examples])
        right = np.asarray(predictions) == gold
        rows = np.stack([right & matched, matched, right & ~matched, ~matched], axis=1).astype(np.float64)
        sums = rows.sum(axis=0)
        figures = {"accuracy": float(self.score_sums(sums, 1))}
        return rows, figures if not sums[3] else {**figures, "accuracy_mismatched": float(sums[2] / sums[3])}

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """Accuracy of the matched rows."""
        sums = np.asarray(sums)
        return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _mismatched(example: Example) -> bool:
    return isinstance(example.gold, tuple)


class STSB(GradeScores, GlueTask):
    """Semantic Textual Similarity Benchmark, grades 0 to 5: Spearman's and Pearson's correlation.

    The original release is measured on its test set (1,379 pairs); its dev set chooses. Published, test set: BERT-base
    Spearman 85.8; all-MiniLM-L6-v2 without fine-tuning 82.0.
    """

    name, title, task, subset = "glue_stsb", "STS-B (GLUE)", "STS-B", "stsb"
    data, dataset_name, metric = "STS-B", "nyu-mll/glue:stsb", "spearman"
    classes = ()
    head = "regression"
    split = "published train, dev and test"
    comparable = "yes, test set of the original release (full budget)"

    def example(self, text: str, pair: str | None, label: Any, where: str) -> Example:
        """One example with its grade."""
        try:
            grade = float(label)
        except (TypeError, ValueError):
            grade = float("nan")
        if not 0.0 <= grade <= 5.0:
            raise ValueError(f"{where}: the label {label!r} is no number from 0 to 5")
        return Example(Row(text, pair, grade, where), grade, f"{text}\n{pair}")
