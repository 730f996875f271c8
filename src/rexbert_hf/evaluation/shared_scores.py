"""Scores that several tasks share, to be mixed in before `TunedTask`: spans, and grades beside predicted numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.evaluation.task_splits import Example, TaskData
from rexbert_hf.metrics.correlation import pearson, spearman
from rexbert_hf.metrics.spans import precision_recall_f1, span_counts


class SpanScores:
    """Precision, recall and F1 of strict spans, counted over all examples."""

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Right, predicted and gold spans of each example, `[n, 3]`, and the figures over all.

        Args:
            examples: with their gold spans.
            predictions: predicted spans of each.
            data: of the task.
        """
        counts = span_counts([example.gold for example in examples], predictions)
        rates = precision_recall_f1(counts.sum(axis=0))
        figures = {"f1": float(rates.f1), "precision": float(rates.precision), "recall": float(rates.recall)}
        return counts.astype(np.float64), figures

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """F1 of summed counts `[..., 3]`.

        Args:
            sums: right, predicted and gold spans.
            n: examples, which F1 does not depend on.
        """
        return precision_recall_f1(sums).f1


class GradeScores:
    """Spearman's and Pearson's correlation of grades and predicted numbers; 0 where a side is constant."""

    additive: ClassVar[bool] = False

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Grade and prediction of each example, `[n, 2]`, and both correlations.

        Args:
            examples: with their grades.
            predictions: a number for each.
            data: of the task.
        """
        rows = np.stack([[one.gold for one in examples], np.asarray(predictions, dtype=np.float64)], axis=1)
        linear = pearson(*rows.T)
        return rows, {"spearman": self.score(rows), "pearson": linear if np.isfinite(linear) else 0.0}

    def score(self, examples: np.ndarray) -> float:
        """Spearman's correlation.

        Args:
            examples: grades and predictions, `[n, 2]`.
        """
        found = spearman(examples[:, 0], examples[:, 1])
        return found if np.isfinite(found) else 0.0
