"""What every evaluation task is: where its data come from, how it runs, and how its figure follows from its examples.

A task hands on one row of sufficient statistics a test example, so that a paired bootstrap over examples can recompute
the figure of any resample: scores, counts of a span F1, grades beside predictions.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.evaluation.tuning import Tuning, TuningChanges

RANDOM = "random"
"""The baseline word of a model of the same form with drawn weights, or of drawn answers; a task says which."""

BUDGETS = ("small", "full")


class DataMissing(Exception):  # noqa: N818 - says what happened, and is no fault
    """A task's data are not there; the message is the one line that says what was looked for, and the task is skipped.

    Example:
        >>> str(DataMissing("no glue/RTE/train.tsv under data"))
        'no glue/RTE/train.tsv under data'
    """


class ModelUnfit(ValueError):  # noqa: N818 - says what is lacking, and is no fault
    """A model lacks what a task needs and cannot be trained; the message says what, and the pair is skipped.

    Example:
        >>> str(ModelUnfit("it has no masked-LM head"))
        'it has no masked-LM head'
    """


@dataclass(frozen=True)
class TaskSource:
    """Where a task may look for its data; one of the first three is enough.

    Args:
        data_dir: a folder of raw public files, one sub-folder a publisher (`homedepot/train.csv.zip`, `glue/RTE`, ...).
        dataset: a `datasets` name or folder, in the task's documented columns.
        sample: the built-in sample shop.
        budget: "small" caps rows, epochs and seeds so that all tasks end within 90 minutes on two cores; "full" takes
            all rows.
        resplit: divide 7:1:2 by hash, as E-BERT does, also where splits are published; GLUE and search keep theirs, and
            pairs of offers cannot be divided so.

    Example:
        >>> TaskSource(sample=True).budget
        'small'
    """

    data_dir: Path | None = None
    dataset: str | None = None
    sample: bool = False
    budget: str = "small"
    resplit: bool = False

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            raise ValueError(f"budget is {self.budget!r}: use one of {', '.join(BUDGETS)}")

    @property
    def small(self) -> bool:
        """Whether rows and epochs are capped."""
        return self.budget == "small"


@dataclass(frozen=True)
class TaskOptions:
    """How a task runs, whatever the task.

    Args:
        batch_size: texts of one forward pass where nothing is trained.
        max_length: longest input in tokens; None for the task's own.
        pooling: "cls", "mean" or "max" for embeddings, in place of what the model says; None keeps that.
        device: "cpu", "cuda", ...; None takes what there is.
        tuning: grid of hyper-parameters, or changes of the task's own; None for the task's own single cell.
        budget: as in `TaskSource`.
        cache_dir: where a task may keep what is dear and does not depend on the seed.
        keep: folder to leave the fitted model in (loads with its `Auto` class); None keeps nothing. Not part of what
            decides the figures.
        judge: `JudgeSettings` for search results that nobody judged; tasks without such results ignore it.

    Example:
        >>> sorted(TaskOptions(max_length=128).config())
        ['batch_size', 'budget', 'max_length', 'pooling', 'tuning']
    """

    batch_size: int = 64
    max_length: int | None = None
    pooling: str | None = None
    device: str | None = None
    tuning: Tuning | TuningChanges | None = None
    budget: str = "small"
    cache_dir: Path | None = None
    keep: Path | None = None
    judge: Any = None

    @property
    def small(self) -> bool:
        """Whether rows and epochs are capped."""
        return self.budget == "small"

    def tuned(self, own: Tuning) -> Tuning:
        """The grid of a task: its own, with what was said over it.

        Args:
            own: of the task.
        """
        return own if self.tuning is None else self.tuning.over(own)

    def config(self) -> dict[str, Any]:
        """What decides the figures of any task, as plain values."""
        tuning = None if self.tuning is None else self.tuning.over(Tuning())
        grid = None if tuning is None else [list(tuning.learning_rates), list(tuning.epochs), tuning.batch_size]
        return {
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            "pooling": self.pooling,
            "tuning": grid,
            "budget": self.budget,
        }


@dataclass(frozen=True)
class TaskResult:
    """Figures of one model, task and seed.

    Args:
        metrics: all figures, in [0, 1] unless the name says otherwise. A figure that does not exist is left out, never
            NaN.
        examples: sufficient statistics of each test example, `[n, k]`, in an order that depends on the data only.
            `[n]` is taken as `[n, 1]`.
        counts: rows of train, dev and test (of this one those that the primary figure counts), rows skipped, judged
            pairs, ...
        slices: the primary metric on perturbed inputs, by the name of the perturbation.
        notes: what a reader must know, one line each.
        final: whether the same inputs would give it again; a result without some of a judge's answers is not cached.

    Raises:
        ValueError: if a figure is not finite, or there is no example.

    Example:
        >>> TaskResult({"accuracy": 0.5}, np.array([0.0, 1.0])).examples.shape
        (2, 1)
    """

    metrics: dict[str, float]
    examples: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    slices: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    final: bool = True

    @property
    def tested(self) -> int:
        """Test examples that the primary figure counts."""
        return self.counts.get("test", len(self.examples))

    def __post_init__(self) -> None:
        examples = np.asarray(self.examples, dtype=np.float64)
        examples = examples[:, None] if examples.ndim == 1 else examples
        object.__setattr__(self, "examples", examples)
        if examples.ndim != 2 or not examples.size:
            raise ValueError(f"no test example was scored (shape {examples.shape}): the test split is empty")
        bad = [name for name, value in {**self.metrics, **self.slices}.items() if not np.isfinite(value)]
        if bad:
            raise ValueError(f"not a finite number: {', '.join(bad)}")
        if not np.isfinite(examples).all():
            row = int(np.flatnonzero(~np.isfinite(examples).all(axis=1))[0])
            raise ValueError(f"test example {row} has no finite score: leave it out and count it")


class Task(ABC):
    """One task: its protocol in the docstring of its class, its data, its run.

    `model` is a folder, a Hub name, or one of the words in `baselines`. `version` goes up whenever the same inputs
    would give other figures; it is part of the key of cached results. `hub_task` is the Hub's name of the kind of task,
    for the `model-index` of cards. `data` is the paper's; `folder` is the place below `data_dir` of the files that
    stand in for it. A task that `keeps_splits` does so whatever a source says of them. A task that trains and is given
    `options.keep` leaves the fitted model there.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    data: ClassVar[str]
    dataset_name: ClassVar[str] = ""
    split: ClassVar[str]
    metric: ClassVar[str]
    comparable: ClassVar[str]
    domain: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    keeps_splits: ClassVar[bool] = False
    baselines: ClassVar[tuple[str, ...]] = ()
    additive: ClassVar[bool] = True
    version: ClassVar[int] = 1
    hub_task: ClassVar[str] = "text-classification"
    folder: ClassVar[str] = ""

    @abstractmethod
    def load(self, source: TaskSource) -> Any:
        """Read the data.

        Args:
            source: where to look.

        Raises:
            DataMissing: if the files are not there; the task is skipped with this line.
            ValueError: if they are there and wrong, with file and row.
        """

    @abstractmethod
    def fingerprint(self, data: Any) -> str:
        """Hash of all that decides the figures in what `load` gave (`content_hash`)."""

    @abstractmethod
    def run(self, model: str, data: Any, seed: int, options: TaskOptions) -> TaskResult:
        """Fine-tune where the task needs it, and measure on the test split.

        Args:
            model: folder, Hub name, or a word of `baselines`.
            data: what `load` gave.
            seed: of weights drawn anew, order and dropout. A task with `trains` False and no draws ignores it.
            options: lengths, batches, tuning grid.
        """

    def config(self, options: TaskOptions) -> dict[str, Any]:
        """What of the options decides this task's figures, as plain values; no grid where nothing is trained.

        Args:
            options: of a run.
        """
        return (options if self.trains else replace(options, tuning=None)).config()

    def comparison(self, source: TaskSource) -> str:
        """Whether figures on what was read may stand beside the paper's: "yes ...", "no: ..." and why.

        Args:
            source: that `load` read.
        """
        if source.dataset is None and source.data_dir is None and source.sample:
            return "no: sample shop"
        if source.dataset is not None and not self.is_benchmark(source.dataset):
            return "no: data named by the user"
        if self.is_divided_anew(source):
            return "no: divided by hash"
        if source.small and not self.comparable.startswith("no"):
            return "no: small budget caps rows and epochs"
        return self.comparable

    def is_benchmark(self, dataset: str) -> bool:
        """Whether a data set's name, whatever its revision, is that of the published benchmark.

        Args:
            dataset: name or folder, as the user gave it.
        """
        return dataset.partition("@")[0] == self.dataset_name

    def measured_split(self, source: TaskSource) -> str:
        """The split that figures are of, for cards: its published name ("test", "validation"), or that it is ours.

        Args:
            source: that `load` read.
        """
        return "test, divided by hash" if self.is_divided_anew(source) else "test"

    def is_divided_anew(self, source: TaskSource) -> bool:
        """Whether published splits make way for ones by hash; the sample shop has none.

        Args:
            source: that `load` read.
        """
        named = source.dataset is not None or source.data_dir is not None
        return source.resplit and named and not self.keeps_splits

    def averaged_over(self, result: TaskResult) -> tuple[str, ...]:
        """What else than test examples the primary figure is a mean over; models that differ in it are not compared.

        Args:
            result: of a run.
        """
        return ()

    def groups(self, data: Any) -> np.ndarray | None:
        """What each test example belongs to, `[n]`, in the order of `TaskResult.examples`: numbers or texts.

        Examples of one text, query or product are not independent, so the bootstrap draws them together. None where
        each stands for itself.

        Args:
            data: what `load` gave.
        """
        return None

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """Primary metric from column sums of `examples`, for many resamples at once; the mean of the first column.

        A task with other statistics overrides this one (additive) or `score` (not additive).

        Args:
            sums: `[..., k]`.
            n: examples in each, `[...]` or a number.
        """
        return np.asarray(sums)[..., 0] / n

    def score(self, examples: np.ndarray) -> float:
        """Primary metric of some examples, `[n, k]`."""
        return float(self.score_sums(examples.sum(axis=0), len(examples)))


def content_hash(*parts: Any) -> str:
    """SHA-1 of plain values and arrays, the same in every process.

    Args:
        parts: texts, numbers, None, paths, lists, mappings, arrays of numbers or of text.

    Raises:
        TypeError: for anything whose content is not plain.

    Example:
        >>> content_hash("a", [1, 2.5]) == content_hash("a", (1, 2.5)), content_hash("a") == content_hash("b")
        (True, False)
    """
    digest = hashlib.sha1(usedforsecurity=False)
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def _feed(digest: Any, part: Any) -> None:
    """Add one value with its kind and length, so that neighbours never run together."""
    if isinstance(part, np.ndarray) and part.dtype != object:
        digest.update(f"array {part.dtype.str} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    elif isinstance(part, Mapping):
        digest.update(f"map {len(part)} ".encode())
        for key in sorted(part, key=str):
            _feed(digest, str(key))
            _feed(digest, part[key])
    elif isinstance(part, list | tuple | np.ndarray):
        digest.update(f"list {len(part)} ".encode())
        for item in part:
            _feed(digest, item)
    elif part is None or isinstance(part, str | int | float | bool | Path | np.generic):
        plain = str(part) if isinstance(part, Path) else part.item() if isinstance(part, np.generic) else part
        text = json.dumps(plain)
        digest.update(f"plain {len(text)} {text} ".encode())
    else:
        raise TypeError(f"cannot hash a {type(part).__name__}: give plain values or arrays")
