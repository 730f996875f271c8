"""Which differences between models are real: paired bootstrap over test examples, Holm over the tasks of a pair.

The statistic is the mean over seeds of a model's figure, all seeds and both models on the same resampled examples.
Examples that come from one text, query or product are drawn together (`Task.groups`). So the test says whether a
difference would stand on other examples of the same kind; how far other seeds would move it is the spread in the table,
not in the p-value.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.evaluation.task import Task, content_hash
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.metrics import holm, paired_difference, resample_scores, resample_sums

logger = logging.getLogger(__name__)

LEVEL = 0.05
FEWEST = 10
"""Test examples, or groups of them where they depend on each other, below which the bootstrap calls chance real."""


@dataclass(frozen=True)
class Comparison:
    """Two models on one task.

    Attributes:
        task: its name.
        first: name of a model.
        second: name of the other one.
        difference: of the primary figures, first minus second.
        low: end of the 95 % interval.
        high: the other end.
        p_value: of this test alone.
        adjusted: after Holm over the tasks of this pair.
        drawn: what the bootstrap drew from: test examples, or groups of them.
    """

    task: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float
    drawn: int

    @property
    def real(self) -> bool:
        """Whether the adjusted p-value is below .05."""
        return self.adjusted < LEVEL


def compare(
    tasks: Sequence[Task],
    examples: dict[tuple[str, str], list[np.ndarray]],
    pairs: Sequence[tuple[str, str]],
    resamples: int = 10_000,
    cache_dir: Path | None = None,
    over: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
    groups: Mapping[str, np.ndarray | None] | None = None,
) -> list[Comparison]:
    """Compare pairs of models on every task that both of them have.

    Args:
        tasks: the tasks.
        examples: (task, model) -> statistics of the test examples, one array `[n, k]` a seed.
        pairs: models to compare.
        resamples: of the bootstrap.
        cache_dir: resampled scores that take long are kept there.
        over: (task, model) -> what else than examples the figure is a mean over (`Task.averaged_over`).
        groups: task -> what its test examples belong to (`Task.groups`).
    """
    groups = groups or {}
    scores: dict[tuple[str, str], np.ndarray] = {}
    found = []
    for first, second in pairs:
        rows: list[tuple[Task, Any]] = []
        for task in tasks:
            ours, theirs = examples.get((task.name, first)), examples.get((task.name, second))
            if not ours or not theirs:
                continue
            if len(ours[0]) != len(theirs[0]):
                logger.warning(
                    "%s: %s has %d test examples and %s %d: they are not compared",
                    task.name, first, len(ours[0]), second, len(theirs[0]),
                )  # fmt: skip
                continue
            if over and over.get((task.name, first)) != over.get((task.name, second)):
                logger.warning(
                    "%s: the figures of %s and %s are means over other cells: they are not compared",
                    task.name, first, second,
                )  # fmt: skip
                continue
            kept = groups.get(task.name)
            if (drawn := _drawn(kept, ours[0])) < FEWEST:
                logger.warning(
                    "%s: its %d test examples%s are fewer than %d, too few to resample: %s and %s are not compared",
                    task.name, len(ours[0]), "" if kept is None else f" fall into {drawn} groups, which", FEWEST,
                    first, second,
                )  # fmt: skip
                continue
            if len(ours) != len(theirs):
                logger.warning(
                    "%s: %s has %d seeds and %s %d: means over unequal numbers of seeds are compared",
                    task.name, first, len(ours), second, len(theirs),
                )  # fmt: skip
            for model, arrays in ((first, ours), (second, theirs)):
                if (task.name, model) not in scores:
                    scores[task.name, model] = resampled(task, arrays, resamples, cache_dir, kept)
            value = mean_score(task, ours) - mean_score(task, theirs)
            rows.append((task, paired_difference(value, scores[task.name, first], scores[task.name, second])))
        adjusted = holm(np.array([row.p_value for _, row in rows]))
        found += [
            Comparison(
                *(task.name, first, second, row.value, row.low, row.high, row.p_value, float(p)),
                drawn=_drawn(groups.get(task.name), examples[task.name, first][0]),
            )
            for (task, row), p in zip(rows, adjusted, strict=True)
        ]
    return found


def _drawn(groups: np.ndarray | None, examples: np.ndarray) -> int:
    return len(examples) if groups is None else len(np.unique(groups))


def mean_score(task: Task, arrays: Sequence[np.ndarray]) -> float:
    """Mean over seeds of the primary figure.

    Args:
        task: whose figure.
        arrays: examples of each seed.
    """
    return float(np.mean([task.score(rows) for rows in arrays]))


def resampled(
    task: Task,
    arrays: Sequence[np.ndarray],
    resamples: int,
    cache_dir: Path | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """The mean over seeds of the primary figure on each resample, `[B]`.

    Args:
        task: whose figure.
        arrays: examples of each seed, all `[n, k]`.
        resamples: B.
        cache_dir: where scores that need a loop over resamples are kept.
        groups: what the examples belong to, `[n]`.
    """
    n, width = arrays[0].shape
    if task.additive:
        columns = np.concatenate([*arrays, np.ones((n, 1))], axis=1)
        found = resample_sums(columns, resamples, groups=groups)
        sums, counts = found[:, :-1].reshape(resamples, len(arrays), width), found[:, -1:]
        return np.asarray(task.score_sums(sums, counts), dtype=np.float64).mean(axis=1)
    key = content_hash(task.name, task.version, resamples, *arrays, *([] if groups is None else [groups]))
    path = None if cache_dir is None else cache_dir / "resampled" / f"{key}.npy"
    if path is not None and path.exists():
        try:
            kept: np.ndarray = np.load(path, allow_pickle=False)
            return kept
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s cannot be read (%s): it is computed again", path, error)
    found = np.mean([resample_scores(rows, task.score, resamples, groups=groups) for rows in arrays], axis=0)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        write_whole(path, buffer.getvalue())
    return np.asarray(found)
