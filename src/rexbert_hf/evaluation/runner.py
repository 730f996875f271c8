"""All models on all tasks: what lacks data is skipped, what fails is listed, and the rest goes through.

A task's data are read once, then each model and seed is one cell. A cell is cached when it is done, so a killed run
goes on with the next one, and a second run of the same inputs trains nothing.
"""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.evaluation.cache import Cell, ResultCache, cell_key
from rexbert_hf.evaluation.models import ModelUnderTest, find_model, labels
from rexbert_hf.evaluation.provenance import measured_now
from rexbert_hf.evaluation.registry import make_task, task_names
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.evaluation.task import DataMissing, ModelUnfit, Task, TaskOptions, TaskResult, TaskSource

logger = logging.getLogger(__name__)

_DETERMINISTIC = ("bm25",)
_ROUNDING = 1e-6


@dataclass
class Outcome:
    """What an evaluation came to.

    Attributes:
        models: those that could be had.
        tasks: those with data.
        cells: measured results, by task, model and seed.
        skipped: what -> why, in the user's words.
        failed: what -> the error's line.
        missing: models that could not be had -> why.
        unknown_words: baseline -> tasks that have none of that name.
        data: task -> where its data came from.
        comparable: task -> whether its figures may stand beside the paper's.
        splits: task -> the split that its figures are of.
        groups: task -> what its test examples belong to (`Task.groups`).
        by_hand: task -> what the user changed of its protocol (`set_by_hand`).
    """

    models: list[ModelUnderTest] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unknown_words: dict[str, list[str]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    comparable: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    groups: dict[str, np.ndarray | None] = field(default_factory=dict)
    by_hand: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, task: str, model: str) -> list[Cell]:
        """The cells of one task and model, by seed.

        Args:
            task: its name.
            model: its name.
        """
        return [cell for cell in self.cells if (cell.task, cell.model) == (task, model)]


def run_tasks(settings: EvaluateSettings) -> Outcome:
    """Measure everything that settings and data allow.

    Args:
        settings: of the recipe.

    Raises:
        ValueError: if none of the models can be had, or two are one folder.
        OSError: if a result cannot be written.
    """
    outcome = Outcome()
    for name in settings.models:
        try:
            outcome.models.append(find_model(name, settings.num_seeds))
        except (OSError, ValueError, ImportError) as error:
            outcome.missing[name] = first_line(error).removeprefix(f"{name}: ")
            logger.warning("model %s is left out: %s", name, outcome.missing[name])
    if not outcome.models:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in outcome.missing.items()))
    labels(outcome.models)  # two that are one folder are told before anything is measured
    for name in task_names(settings.tasks):
        known = len(outcome.cells)
        _run_task(name, settings, outcome)
        if any(not cell.cached for cell in outcome.cells[known:]):
            gc.collect()  # models go before the next one comes; takes half a second, which a run from the cache saves
    return outcome


def _run_task(name: str, settings: EvaluateSettings, outcome: Outcome) -> None:
    source = settings.source(name)
    try:
        task = make_task(name)
        data = task.load(source)
        fingerprint, groups = task.fingerprint(data), task.groups(data)
        by_hand = set_by_hand(task, source, settings.options())
    except DataMissing as reason:
        if source.dataset is not None:  # it was named: a slip of the pen must not look like success
            _fail(outcome, name, reason)
            return
        outcome.skipped[name] = first_line(reason).removeprefix(f"{name}: ")
        logger.info("%s is skipped: %s", name, outcome.skipped[name])
        return
    except Exception as error:  # a task is other people's code and data: the rest must go through
        _fail(outcome, name, error)
        return
    outcome.tasks.append(task)
    outcome.data[name], outcome.comparable[name] = where(task, source), comparison(task, source, settings.options())
    outcome.splits[name], outcome.groups[name] = task.measured_split(source), groups
    outcome.by_hand[name] = by_hand
    called = labels(outcome.models)
    for model in outcome.models:
        if model.is_word and model.name not in task.baselines:
            outcome.unknown_words.setdefault(model.name, []).append(name)
            continue
        for seed in seeds_of(task, model, settings.num_seeds):
            try:
                outcome.cells.append(_run_cell(task, data, fingerprint, model, seed, settings))
            except ModelUnfit as reason:
                outcome.skipped[f"{name} / {called[model.name]}"] = first_line(reason)
                logger.info("%s / %s is skipped: %s", name, called[model.name], first_line(reason))
                break
            except Exception as error:
                _fail(outcome, f"{name} / {called[model.name]} / seed {seed}", error)
                break


def _run_cell(
    task: Task, data: Any, fingerprint: str, model: ModelUnderTest, seed: int, settings: EvaluateSettings
) -> Cell:
    folder = Path(settings.output_dir) / "cache"
    options = settings.options(cache_dir=folder / "shared")
    measured = model.at(seed)
    cache, key = ResultCache(folder), cell_key(task, measured.key, fingerprint, seed, options)
    found = _kept(task, cache, key)
    if found is None:
        measured.check_unchanged()  # before the work too, which would be for nothing
        start = time.perf_counter()
        result = task.run(measured.path, data, seed, options)
        check_result(task, result)
        measured.check_unchanged()
        seconds = time.perf_counter() - start
        provenance = measured_now()
        if result.final:
            cache.put(task.name, key, result, seconds, provenance)
    else:
        result, seconds, provenance = found
    figure = f"{task.metric} {result.metrics[task.metric]:.4f}"
    took = f"{seconds:.0f} s" if found is None else "from the cache"
    logger.info("%s, %s, seed %d: %s (%s)", task.name, model.name, seed, figure, took)
    return Cell(task.name, model.name, seed, result, seconds, found is not None, provenance)


def _kept(task: Task, cache: ResultCache, key: str) -> tuple[TaskResult, float, dict[str, Any]] | None:
    """A cached result whose figure is what its examples say; the two lie in two files."""
    found = cache.get(task.name, key)
    if found is not None:
        try:
            check_result(task, found[0])
        except (ValueError, IndexError) as error:
            logger.warning("%s in the cache is damaged (%s): it is measured again", key, first_line(error))
            return None
    return found


def check_result(task: Task, result: TaskResult) -> None:
    """See that a task's primary figure is there, and is what its examples say: the bootstrap resamples those.

    Args:
        task: whose result it is.
        result: of a run.

    Raises:
        ValueError: if not.
    """
    if task.metric not in result.metrics:
        raise ValueError(f"{task.name} has no figure {task.metric!r}; it has {', '.join(result.metrics)}")
    told, counted = result.metrics[task.metric], task.score(result.examples)
    if not np.isclose(told, counted, rtol=0, atol=_ROUNDING):
        raise ValueError(f"{task.name}: {task.metric} is {told:.6f}, and its examples say {counted:.6f}")


def seeds_of(task: Task, model: ModelUnderTest, count: int) -> list[int]:
    """Seeds worth running: one where nothing is drawn, and all of a model that was trained with each.

    Args:
        task: to run.
        model: on it.
        count: seeds wanted.
    """
    draws = model.name == "random" or bool(model.by_seed) or (task.trains and model.name not in _DETERMINISTIC)
    return list(range(count if draws else 1))


def comparison(task: Task, source: TaskSource, options: TaskOptions) -> str:
    """Whether figures may stand beside the paper's; what the user changed of the protocol stands behind.

    Args:
        task: of the figures.
        source: that it read.
        options: that it ran with.

    Example:
        >>> from rexbert_hf.evaluation.registry import make_task
        >>> source = TaskSource(dataset="nyu-mll/glue", budget="full")
        >>> comparison(make_task("glue_rte"), source, TaskOptions(max_length=64))
        'yes, GLUE dev set (full budget); set by hand: max_length'
    """
    found = task.comparison(source)
    settled = {"max_length": options.max_length, "pooling": options.pooling}
    changed = [*(name for name, value in settled.items() if value is not None)]
    changed += ["tuning"] if task.trains and options.tuning is not None else []
    return found if found.startswith("no") or not changed else f"{found}; set by hand: {', '.join(changed)}"


def set_by_hand(task: Task, source: TaskSource, options: TaskOptions) -> dict[str, Any]:
    """What the user changed of a task's protocol, by the names of the settings; nothing that comes to the task's own.

    The budget is told apart from it, and a judge leaves the primary figure as it is.

    Args:
        task: of the figures.
        source: that it read.
        options: that it ran with.

    Example:
        >>> from rexbert_hf.evaluation.registry import make_task
        >>> source = TaskSource(data_dir=Path("data"), resplit=True)
        >>> set_by_hand(make_task("review_qa"), source, TaskOptions(max_length=64))
        {'max_length': 64, 'resplit': True}
    """
    asked = replace(options, judge=None)
    without = {
        "max_length": replace(asked, max_length=None),
        "pooling": replace(asked, pooling=None),
        "tuning": replace(asked, tuning=None),
    }
    changed = [name for name, plain in without.items() if task.config(plain) != task.config(asked)]
    found = {name: getattr(options, name) for name in changed if name != "tuning"}
    if "tuning" in changed:
        found |= {f"tuning.{name}": value for name, value in vars(options.tuning).items() if value is not None}
    found |= {"resplit": True} if task.is_divided_anew(source) else {}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def where(task: Task, source: TaskSource) -> str:
    """What a task was measured on, in a few words that leave this machine's folders out.

    Args:
        task: that read it.
        source: where it looked.

    Example:
        >>> from rexbert_hf.evaluation.registry import make_task
        >>> task = make_task("product_search")
        >>> where(task, TaskSource(sample=True)), where(task, TaskSource(data_dir=Path("data")))
        ('sample shop', 'homedepot')
    """
    if source.dataset is not None:
        return Path(source.dataset).name if Path(source.dataset).exists() else source.dataset
    return "sample shop" if source.sample else task.folder or task.data


def first_line(error: BaseException) -> str:
    """The first line of an error, or its kind.

    Example:
        >>> first_line(ValueError("row 3: no label"))
        'row 3: no label'
    """
    lines = str(error).strip().splitlines()
    plain = isinstance(error, ValueError | OSError | DataMissing | ImportError)
    text = lines[0] if lines else type(error).__name__
    return text if plain and lines else f"{type(error).__name__}: {text}"


def _fail(outcome: Outcome, what: str, error: Exception) -> None:
    outcome.failed[what] = first_line(error).removeprefix(f"{what}: ")
    expected = isinstance(error, ValueError | OSError | ImportError | DataMissing)
    logger.error("%s failed: %s", what, outcome.failed[what], exc_info=None if expected else error)
