"""Accuracy, F1 and Matthews' correlation, from counts that add up over examples; 0 where a figure has no value.

The zeros are scikit-learn's: F1 without a positive on either side, and Matthews' correlation of a constant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def accuracy(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Share of equal classes.

    Args:
        gold: classes, `[n]`.
        predicted: classes, `[n]`.

    Raises:
        ValueError: if the lengths differ or there is no example.

    Example:
        >>> accuracy(["a", "b"], ["a", "c"])
        0.5
    """
    a, b = _checked(gold, predicted)
    return float(np.mean(a == b))


def binary_counts(gold: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """True positives, false positives, false negatives and true negatives of each example, float64 `[n, 4]`.

    Args:
        gold: true or false, `[n]`.
        predicted: likewise.

    Raises:
        ValueError: if the lengths differ, there is no example, or a value is neither 0 nor 1.

    Example:
        >>> binary_counts([1, 0], [1, 1]).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    a, b = _checked(gold, predicted)
    for side in (a, b):
        odd = np.flatnonzero(~np.isin(side, (0, 1)))
        if len(odd):
            raise ValueError(f"row {odd[0]}: {side[odd[0]]!r} is neither 0 nor 1")
    g, p = a.astype(bool), b.astype(bool)
    return np.stack([g & p, ~g & p, g & ~p, ~g & ~p], axis=1).astype(np.float64)


def accuracy_of_sums(sums: np.ndarray) -> np.ndarray:
    """Accuracy from column sums of `binary_counts`.

    Args:
        sums: `[..., 4]`.
    """
    sums = np.asarray(sums, dtype=np.float64)
    return (sums[..., 0] + sums[..., 3]) / sums.sum(axis=-1)


def best_f1_cut(scores: ArrayLike, gold: ArrayLike) -> float:
    """Where to cut scores so that saying yes from there on gives the highest F1: halfway to the next lower score.

    Of equally good cuts the highest one. Half a point below the lowest score, where yes to all is best.

    Args:
        scores: `[n]`, finite.
        gold: true or false, `[n]`.

    Raises:
        ValueError: if the lengths differ, there is no example, or a gold value is neither 0 nor 1.

    Example:
        >>> best_f1_cut([0.9, 0.4, 0.3, 0.1], [1, 1, 0, 0])
        0.35
    """
    found, truth = _checked(scores, gold)
    binary_counts(truth, truth)
    order = np.argsort(-found, kind="stable")
    values, hits = found[order].astype(np.float64), np.cumsum(truth[order].astype(bool))
    said = np.arange(1, len(values) + 1)
    f1 = 2 * hits / (said + hits[-1])
    ends = np.append(values[1:] < values[:-1], True)  # equal scores are cut together
    last = int(np.argmax(np.where(ends, f1, -1.0)))
    below = values[last + 1] if last + 1 < len(values) else values[last] - 1.0
    return float((values[last] + below) / 2)


def f1_of_sums(sums: np.ndarray) -> np.ndarray:
    """F1 of the positive class from column sums of `binary_counts`; 0 where there is no positive at all.

    Args:
        sums: `[..., 4]`.

    Example:
        >>> float(f1_of_sums(np.array([3, 1, 2, 9]))), float(f1_of_sums(np.array([0, 0, 0, 9])))
        (0.6666666666666666, 0.0)
    """
    tp, fp, fn, _ = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    total = 2 * tp + fp + fn
    return np.divide(2 * tp, total, out=np.zeros(np.shape(total)), where=total > 0)


def matthews_of_sums(sums: np.ndarray) -> np.ndarray:
    """Matthews' correlation from column sums of `binary_counts`; 0 where a side is constant.

    Args:
        sums: `[..., 4]`.

    Example:
        >>> round(float(matthews_of_sums(np.array([3, 1, 2, 9]))), 6)
        0.533002
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, below, out=np.zeros(np.shape(below)), where=below > 0)


def binary_f1(gold: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of the class 1.

    Args:
        gold: 0 or 1, `[n]`.
        predicted: likewise.

    Raises:
        ValueError: see `binary_counts`.

    Example:
        >>> binary_f1([1, 1, 0], [1, 0, 0])
        0.6666666666666666
    """
    return float(f1_of_sums(binary_counts(gold, predicted).sum(axis=0)))


def matthews(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Matthews' correlation of two or more classes (R_K of Gorodkin 2004); 0 where a side is constant.

    Args:
        gold: classes, `[n]`.
        predicted: classes, `[n]`.

    Raises:
        ValueError: if the lengths differ or there is no example.

    Example:
        >>> round(matthews([1, 1, 0, 2], [1, 0, 0, 2]), 6)
        0.7
    """
    a, b = _checked(gold, predicted)
    classes, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    k, n = len(classes), len(a)
    table = np.bincount(numbers[:n] * k + numbers[n:], minlength=k * k).reshape(k, k).astype(np.float64)
    true, said = table.sum(axis=1), table.sum(axis=0)
    covered = n * np.trace(table) - true @ said
    spread = np.sqrt((n**2 - true @ true) * (n**2 - said @ said))
    return float(covered / spread) if spread > 0 else 0.0


def _checked(gold: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(gold).ravel(), np.asarray(predicted).ravel()
    if len(a) != len(b):
        raise ValueError(f"{len(a)} gold labels but {len(b)} predictions: give each example both")
    if not len(a):
        raise ValueError("there is no example: the split is empty")
    return a, b
