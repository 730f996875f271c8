"""Which probability is enough: precision, recall and F1 by threshold, with intervals, and the choice of one.

Shares have Wilson intervals. F1 is no share of anything, so its interval is a bootstrap over documents, which for
two classes is a multinomial draw of (true positive, false positive, false negative, true negative).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..metrics.agreement import wilson_interval

GRID = np.arange(1, 100) / 100
"""Thresholds of a sweep."""

_RESAMPLES = 2_000
_LEAST_KEPT = 10


@dataclass(frozen=True)
class Sweep:
    """Figures by threshold.

    Attributes:
        thresholds: rising, float64 `[T]`.
        true_positives: in-domain documents that are kept, int64 `[T]`.
        false_positives: others that are kept, int64 `[T]`.
        positives: in-domain documents.
        negatives: others.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    positives: int
    negatives: int

    @property
    def kept(self) -> np.ndarray:
        """Documents at or above each threshold."""
        return self.true_positives + self.false_positives

    @property
    def precision(self) -> np.ndarray:
        """Share of the kept that is in domain; NaN where nothing is kept."""
        return np.divide(self.true_positives, self.kept, out=np.full(len(self.kept), np.nan), where=self.kept > 0)

    @property
    def recall(self) -> np.ndarray:
        """Share of the in-domain documents that is kept."""
        return self.true_positives / self.positives

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall; 0 where nothing is kept."""
        return 2 * self.true_positives / (self.kept + self.positives)

    def at(self, index: int, seed: int = 0) -> dict[str, Any]:
        """All figures at one threshold, with 95 % intervals, as plain values.

        Args:
            index: of the threshold.
            seed: of the bootstrap.
        """
        true, false = int(self.true_positives[index]), int(self.false_positives[index])
        missed, right = self.positives - true, self.negatives - false
        return {
            "threshold": float(self.thresholds[index]),
            "documents": self.positives + self.negatives,
            "positives": self.positives,
            "precision": true / (true + false) if true + false else 0.0,
            "precision_interval": list(_ends(true, true + false)),
            "recall": true / self.positives,
            "recall_interval": list(_ends(true, self.positives)),
            "f1": float(self.f1[index]),
            "f1_interval": list(bootstrap_f1(true, false, missed, right, seed)),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Every threshold with its figures and the intervals of precision and recall, for a file."""
        return [
            {
                "threshold": float(self.thresholds[i]),
                "kept": int(self.kept[i]),
                "precision": None if np.isnan(self.precision[i]) else float(self.precision[i]),
                "precision_interval": _ends(int(self.true_positives[i]), int(self.kept[i])),
                "recall": float(self.recall[i]),
                "recall_interval": _ends(int(self.true_positives[i]), self.positives),
                "f1": float(self.f1[i]),
            }
            for i in range(len(self.thresholds))
        ]


def sweep(scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray = GRID) -> Sweep:
    """Count what each threshold keeps.

    Args:
        scores: probabilities, `[N]`.
        truth: whether each document is in domain, bool `[N]`.
        thresholds: rising.

    Raises:
        ValueError: if lengths differ, a score is not a number, or one side has no document.

    Example:
        >>> found = sweep(np.array([0.9, 0.6, 0.4, 0.2]), np.array([True, False, True, False]), np.array([0.3, 0.5]))
        >>> found.precision.round(3).tolist(), found.recall.tolist()
        ([0.667, 0.5], [1.0, 0.5])
    """
    scores, truth = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    if scores.shape != truth.shape or np.isnan(scores).any():
        raise ValueError(f"{len(scores)} scores and {len(truth)} labels: one number for each document is needed")
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise ValueError(f"{positives} documents in domain and {negatives} out of it: a sweep needs both")
    inside, outside = np.sort(scores[truth]), np.sort(scores[~truth])
    true = positives - np.searchsorted(inside, thresholds, side="left")
    false = negatives - np.searchsorted(outside, thresholds, side="left")
    return Sweep(np.asarray(thresholds, dtype=np.float64), true, false, positives, negatives)


def choose(found: Sweep, rule: Literal["f1", "precision"] = "f1", target_precision: float = 0.9) -> int:
    """Index of the threshold to use.

    "f1" takes the best F1, in the middle of its plateau. "precision" takes the lowest threshold that
    reaches the target: what is asked for is quality, and as much of it as there is.

    Args:
        found: a sweep of documents that training did not see.
        rule: how to choose.
        target_precision: for "precision".

    Raises:
        ValueError: if no threshold reaches the target; the best one is named.

    Example:
        >>> scores, truth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, True, False, False])
        >>> found = sweep(scores, truth)
        >>> float(GRID[choose(found)]), float(GRID[choose(found, "precision", 0.95)])
        (0.75, 0.71)
    """
    if rule == "f1":
        highest = np.flatnonzero(found.f1 >= found.f1.max() - 1e-12)
        # Of several plateaus the longest is the safest.
        plateau = max(np.split(highest, np.flatnonzero(np.diff(highest) > 1) + 1), key=len)
        return int(plateau[(len(plateau) - 1) // 2])
    # A handful of documents reaches any precision by chance.
    enough = found.kept >= max(1, min(_LEAST_KEPT, found.positives // 2))
    precision = np.where(enough, np.nan_to_num(found.precision), 0.0)
    reached = np.flatnonzero(precision >= target_precision)
    if not len(reached):
        best = int(precision.argmax())
        raise ValueError(
            f"no threshold reaches a precision of {target_precision}: the best is {precision[best]:.3f} at "
            f"{found.thresholds[best]:.2f}; lower target_precision or label more documents"
        )
    return int(reached[0])


def _ends(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    found = wilson_interval(successes, trials)
    return found.low, found.high


def bootstrap_f1(true: int, false: int, missed: int, right: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of F1 over documents drawn anew.

    Args:
        true: true positives.
        false: false positives.
        missed: false negatives.
        right: true negatives.
        seed: of the draws.

    Example:
        >>> bootstrap_f1(10, 0, 0, 10)
        (1.0, 1.0)
    """
    counts = np.array([true, false, missed, right])
    total = int(counts.sum())
    if not total:
        return 0.0, 1.0
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=_RESAMPLES)
    f1 = 2 * drawn[:, 0] / np.maximum(2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2], 1)
    low, high = np.quantile(f1, [0.025, 0.975])
    return float(low), float(high)
