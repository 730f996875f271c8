"""What the tasks that fine-tune a head share: where data come from, caps, training, random answers, slices.

A task says how to read its data, what is predicted, and how predictions are scored; `run` is here. The robustness
slices predict the test split with perturbed inputs, with the model that the plain inputs trained.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.evaluation.fine_tuning import HEADS, FineTuned, fine_tune
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row, check_rows
from rexbert_hf.evaluation.robustness import RARE_BRANDS, names_rare_brand, perturb, perturb_words
from rexbert_hf.evaluation.task import RANDOM, DataMissing, Task, TaskOptions, TaskResult, TaskSource, Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData, dataset_examples, hash_split

logger = logging.getLogger(__name__)


class TunedTask(Task):
    """A task that fine-tunes one head and measures on a test split.

    A subclass sets the class attributes and writes `read_folder`, `read_row`, `read_sample`, `measure` and `guess`.

    Attributes:
        head: what is predicted.
        max_length: longest input in tokens.
        folder: of its files below `data_dir`.
        caps: rows of train, dev and test under the small budget.
        small: hyper-parameters under the small budget: a higher rate, because there are fewer steps.
        full: hyper-parameters otherwise.
        slice_kinds: perturbations that make sense here.
    """

    head: ClassVar[HeadName]
    max_length: ClassVar[int] = 128
    folder: ClassVar[str]
    caps: ClassVar[tuple[int, int, int]] = (1_000, 200, 500)
    small: ClassVar[Tuning] = Tuning((1e-4,), (3,), 16)
    full: ClassVar[Tuning] = Tuning((2e-5,), (4,), 32)
    slice_kinds: ClassVar[tuple[str, ...]] = ("typos", "casing")
    baselines: ClassVar[tuple[str, ...]] = (RANDOM,)

    @abstractmethod
    def read_folder(self, folder: Path) -> TaskData:
        """Read the published files.

        Args:
            folder: that holds them.

        Raises:
            ValueError: if a file or row is wrong, with file and row.
        """

    @abstractmethod
    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Make an example of a row with the documented `datasets` columns.

        Args:
            row: of the dataset.
            where: its name, split and number, for messages.

        Raises:
            ValueError: if a column is missing or wrong.
        """

    @abstractmethod
    def read_sample(self) -> list[Example]:
        """Examples of the sample shop."""

    @abstractmethod
    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Sufficient statistics of each example, `[n, k]`, and all figures.

        Args:
            examples: with their gold values.
            predictions: of `decode` or `guess`.
            data: of the task, for its labels.
        """

    @abstractmethod
    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Predictions of the baseline "random": drawn from what the training examples hold.

        Args:
            examples: to guess for.
            data: of the task.
            rng: draws.
        """

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Classes or tags that exist, from all examples; a task with a fixed set returns that.

        Args:
            examples: of all splits.
        """
        found = {one for example in examples for one in _labels(example.row)}
        return tuple(sorted(found))

    def decode(self, answers: Any, examples: Sequence[Example], data: TaskData) -> Sequence[Any]:
        """Predictions as `measure` takes them, from what the head answers (`FineTuned.predict`).

        Args:
            answers: of the head.
            examples: that they belong to.
            data: of the task.
        """
        found: Sequence[Any] = answers
        return found

    def load(self, source: TaskSource) -> TaskData:
        """Read the data, in this order: `dataset`, `data_dir`, `sample`."""
        data = self._read(source)
        data = self.resplit(data, source) if source.resplit else data
        data = self.capped(data) if source.small else data
        for name, part in data.named().items():
            several = name != "dev" or HEADS[self.head].settles
            check_rows(self.head, [example.row for example in part], data.labels, name, several, self._place(source))
        return _with_unlearnt(data, self.name)

    def _place(self, source: TaskSource) -> str:
        """What was read, for messages that are about no single row."""
        if source.dataset is not None:
            return source.dataset
        return "sample shop" if source.data_dir is None else str(Path(source.data_dir) / self.folder)

    def _read(self, source: TaskSource) -> TaskData:
        if source.dataset is not None:
            parts = dataset_examples(source.dataset, self.read_row, keyed=self.keyed)
            return self._with_labels(parts["train"], parts["dev"], parts["test"])
        if source.data_dir is not None:
            folder = Path(source.data_dir) / self.folder
            if not folder.is_dir():
                raise DataMissing(f"{self.name}: no folder {self.folder} in {source.data_dir}")
            return self.read_folder(folder)
        if source.sample:
            return self._with_labels(*hash_split(self.keyed(self.read_sample())))
        raise DataMissing(f"{self.name}: neither a data folder, nor a dataset, nor the sample shop was named")

    def keyed(self, examples: list[Example]) -> list[Example]:
        """Examples that the hash is to divide, with keys that only all of them together give; as they are.

        Args:
            examples: of a data set, or of the sample shop.

        Raises:
            ValueError: if they cannot be divided.
        """
        return examples

    def resplit(self, data: TaskData, source: TaskSource) -> TaskData:
        """All examples divided anew, by the hash of their keys.

        Args:
            data: as it was read.
            source: where.

        Raises:
            ValueError: if they cannot be divided so.
        """
        return data.resplit()

    def capped(self, data: TaskData) -> TaskData:
        """What the small budget takes of the data.

        Args:
            data: all.
        """
        return data.capped(*self.caps)

    def sizes(self, data: TaskData) -> dict[str, int]:
        """Rows of each split; of "test" those that the primary figure counts.

        Args:
            data: of the task.
        """
        return {name: len(part) for name, part in data.named().items()}

    def _with_labels(self, train: list[Example], dev: list[Example], test: list[Example]) -> TaskData:
        return TaskData(train, dev, test, labels=self.labels_of([*train, *dev, *test]))

    def fingerprint(self, data: TaskData) -> str:
        """Hash of all examples and labels."""
        return data.fingerprint()

    def groups(self, data: TaskData) -> np.ndarray:
        """Examples of one key, which no split divides, belong together."""
        keys = [example.key for example in data.test]  # an array of them has as many characters a row as the longest
        number = {key: i for i, key in enumerate(sorted(set(keys)))}
        return np.array([number[key] for key in keys], dtype=np.int64)

    def config(self, options: TaskOptions) -> dict[str, Any]:
        """The options, with this task's own hyper-parameters where they say none."""
        chosen = replace(options, tuning=self._tuning(options), max_length=options.max_length or self.max_length)
        return chosen.config()

    def _tuning(self, options: TaskOptions) -> Tuning:
        return options.tuned(self.small if options.small else self.full)

    def run(self, model: str, data: TaskData, seed: int, options: TaskOptions) -> TaskResult:
        """Fine-tune, measure, and measure again on perturbed inputs."""
        if model == RANDOM:
            guesses = self.guess(data.test, data, np.random.default_rng(seed))
            return self._result(data, *self.measure(data.test, guesses, data), slices={})
        fitted = self._fit(model, data, seed, options)
        if options.keep is not None:
            fitted.save(options.keep)
        statistics, figures = self.measure(data.test, self._predictions(fitted, data.test, data), data)
        return self._result(data, statistics, figures, self._slices(fitted, data, statistics), fitted.notes)

    def _predictions(self, fitted: FineTuned, examples: Sequence[Example], data: TaskData) -> Sequence[Any]:
        return self.decode(fitted.predict([example.row for example in examples]), examples, data)

    def _fit(self, model: str, data: TaskData, seed: int, options: TaskOptions) -> FineTuned:
        def dev_figure(answers: Any, _: Sequence[Row]) -> float:
            return self.score(self.measure(data.dev, self.decode(answers, data.dev, data), data)[0])

        return fine_tune(
            model,
            self.head,
            [example.row for example in data.train],
            [example.row for example in data.dev],
            labels=data.labels,
            tuning=self._tuning(options),
            seed=seed,
            max_length=options.max_length or self.max_length,
            metric=dev_figure,
            pooling=options.pooling,
            device=options.device,
        )

    def _result(
        self,
        data: TaskData,
        statistics: np.ndarray,
        figures: dict[str, float],
        slices: dict[str, float],
        notes: tuple[str, ...] = (),
    ) -> TaskResult:
        return TaskResult(figures, statistics, {**self.sizes(data), **data.counts}, slices, (*data.notes, *notes))

    def _slices(self, fitted: FineTuned, data: TaskData, statistics: np.ndarray) -> dict[str, float]:
        found = {name: self.score(statistics[rows]) for name, rows in self.subsets(data).items()}
        for kind in self.slice_kinds:
            changed = [self.perturbed(example, kind) for example in data.test]
            if any(new.row != old.row for new, old in zip(changed, data.test, strict=True)):
                found[kind] = self.score(self.measure(changed, self._predictions(fitted, changed, data), data)[0])
        return found

    def subsets(self, data: TaskData) -> dict[str, list[int]]:
        """Parts of the test split that get a slice of their own, by name: numbers of their examples.

        Args:
            data: of the task.
        """
        return {}

    def perturbed(self, example: Example, kind: str) -> Example:
        """The example with its text changed; labels stay, so kinds that move words need a task that allows it.

        Args:
            example: of the test split.
            kind: of `slice_kinds`.
        """
        text = example.row.text
        new = perturb([text], kind)[0] if isinstance(text, str) else perturb_words(text, kind)
        return example._replace(row=example.row._replace(text=new))


def _with_unlearnt(data: TaskData, task: str) -> TaskData:
    """The same, with a count and a note where test examples have labels that no training example has.

    They stay: leaving them out would measure an easier task. But whoever reads the figure must know that no model can
    reach 1, and where to look if the label is a slip of the pen.
    """
    if not data.labels:
        return data
    learnt = {label for example in data.train for label in _labels(example.row)}
    lost = [(example, label) for example in data.test for label in _labels(example.row)[::-1] if label not in learnt]
    first = next(iter(lost), None)
    if first is None:
        return data
    count = len({id(example) for example, _ in lost})
    where = f", as {first[0].row.where}" if first[0].row.where else ""
    note = f"{count} test examples have a label that no training example has ({first[1]!r}{where})"
    logger.warning("%s: %s", task, note)
    return replace(data, counts={**data.counts, "unlearnt_labels": count}, notes=(*data.notes, note))


FEWEST = 20
"""Test examples that a part of the test split needs to be a slice of its own."""


def rare_brand_slice(data: TaskData) -> dict[str, list[int]]:
    """Numbers of the test titles that mention a rare brand, if there are `FEWEST` or more.

    Args:
        data: of a task whose texts are product titles.
    """
    train, test = ([str(one.key if isinstance(one.row.text, list) else one.row.text) for one in part]
                   for part in (data.train, data.test))  # fmt: skip
    rows = [i for i, rare in enumerate(names_rare_brand(test, train)) if rare]
    return {RARE_BRANDS: rows} if len(rows) >= FEWEST else {}


def _labels(row: Row) -> Sequence[str]:
    return [row.label] if isinstance(row.label, str) else row.label or ()
