"""Accuracy, micro and macro F1 of classes and of sets of labels, from counts that add up over examples.

One decision worth knowing: macro F1 is a mean over classes, so it depends on which classes count. By default those
that occur in gold or predictions do (scikit-learn's rule for classes); `absent="zero"` lets all of the label set
count, with 0 for a class that occurs nowhere (its rule for label matrices).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .spans import precision_recall_f1

ABSENT = ("skip", "zero")


def one_hot(classes: Sequence[int] | np.ndarray, num_classes: int) -> np.ndarray:
    """Classes as a label matrix, bool `[n, C]`.

    Args:
        classes: number of each example's class, `[n]`.
        num_classes: C.

    Raises:
        ValueError: if a number is outside 0..C-1, with its row.

    Example:
        >>> one_hot([1, 0], 2).tolist()
        [[False, True], [True, False]]
    """
    numbers = np.asarray(classes, dtype=np.int64)
    outside = np.flatnonzero((numbers < 0) | (numbers >= num_classes))
    if len(outside):
        raise ValueError(f"example {outside[0]} has class {numbers[outside[0]]}: there are 0 to {num_classes - 1}")
    return numbers[:, None] == np.arange(num_classes)


def label_counts(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Right, predicted and gold of each example and label, and whether all labels are right: float64 `[n, 3 C + 1]`.

    Columns are C of right, C of predicted, C of gold, then the exact match. Their sums give every figure of
    `label_scores`, so any resample of examples can be scored from sums.

    Args:
        gold: labels, bool `[n, C]`; of single classes by `one_hot`.
        predicted: the same shape.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> label_counts(np.array([[1, 1]], bool), np.array([[1, 0]], bool)).tolist()
        [[1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]]
    """
    return np.concatenate(_counted(gold, predicted), axis=1).astype(np.float64)


def label_sums(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Column sums of `label_counts`, without its rows: of many labels those take gigabytes; float64 `[3 C + 1]`.

    Args:
        gold: labels, bool `[n, C]`; of single classes by `one_hot`.
        predicted: the same shape.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> label_sums(np.array([[1, 1], [1, 0]], bool), np.array([[1, 0], [1, 0]], bool)).tolist()
        [2.0, 0.0, 2.0, 0.0, 2.0, 1.0, 1.0]
    """
    return np.concatenate([part.sum(axis=0) for part in _counted(gold, predicted)]).astype(np.float64)


def _counted(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    gold, predicted = _checked(gold, predicted)
    return gold & predicted, predicted, gold, (gold == predicted).all(axis=1, keepdims=True)


def _checked(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gold, predicted = np.asarray(gold, dtype=bool), np.asarray(predicted, dtype=bool)
    if gold.shape != predicted.shape or gold.ndim != 2:
        raise ValueError(f"gold labels have shape {gold.shape}, predicted {predicted.shape}: both are [n, C]")
    return gold, predicted


def label_scores(counts: np.ndarray, absent: str = "skip") -> dict[str, float]:
    """Accuracy, micro F1 and macro F1 of `label_counts`.

    For label sets, accuracy asks for the whole set (scikit-learn's subset accuracy).

    Args:
        counts: `[n, 3 C + 1]`.
        absent: "skip" or "zero", for labels without gold and prediction.

    Raises:
        ValueError: if there is no example, or `absent` is something else.

    Example:
        >>> scores = label_scores(label_counts(one_hot([0, 1, 1], 3), one_hot([0, 1, 0], 3)))
        >>> {name: round(score, 4) for name, score in scores.items()}
        {'accuracy': 0.6667, 'micro_f1': 0.6667, 'macro_f1': 0.6667}
    """
    return scores_of_sums(np.asarray(counts, dtype=np.float64).sum(axis=0), len(counts), absent)


def scores_of_sums(sums: np.ndarray, n: int, absent: str = "skip") -> dict[str, float]:
    """`label_scores` from the sums.

    Args:
        sums: of `label_sums`, `[3 C + 1]`.
        n: examples.
        absent: "skip" or "zero", for labels without gold and prediction.

    Raises:
        ValueError: if there is no example, or `absent` is something else.

    Example:
        >>> scores_of_sums(label_sums(one_hot([0, 1], 2), one_hot([0, 1], 2)), 2)
        {'accuracy': 1.0, 'micro_f1': 1.0, 'macro_f1': 1.0}
    """
    if not n:
        raise ValueError("no example to score: the split is empty")
    return {
        "accuracy": float(sums[-1] / n),
        "micro_f1": float(micro_f1(sums)),
        "macro_f1": float(macro_f1(sums, absent)),
    }


def micro_f1(sums: np.ndarray) -> np.ndarray:
    """F1 over all labels together; 0 where nothing is predicted and nothing is gold.

    Args:
        sums: column sums of `label_counts`, `[..., 3 C + 1]`.

    Example:
        >>> float(micro_f1(np.array([1.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.0])))
        0.5
    """
    return precision_recall_f1(_by_label(sums).sum(axis=-2)).f1


def macro_f1(sums: np.ndarray, absent: str = "skip") -> np.ndarray:
    """Mean of the labels' F1.

    Args:
        sums: column sums of `label_counts`, `[..., 3 C + 1]`.
        absent: "skip" or "zero", for labels without gold and prediction.

    Raises:
        ValueError: if `absent` is something else.

    Example:
        >>> sums = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
        >>> float(macro_f1(sums)), float(macro_f1(sums, absent="zero"))
        (1.0, 0.5)
    """
    if absent not in ABSENT:
        raise ValueError(f"absent is {absent!r}: use 'skip' or 'zero'")
    table = _by_label(sums)
    scores = precision_recall_f1(table).f1
    counted = table[..., 1:].sum(axis=-1) > 0 if absent == "skip" else np.ones_like(scores, dtype=bool)
    total = counted.sum(axis=-1)
    return np.divide((scores * counted).sum(axis=-1), total, out=np.zeros(total.shape), where=total > 0)


def _by_label(sums: np.ndarray) -> np.ndarray:
    """Right, predicted, gold of each label, `[..., C, 3]`."""
    sums = np.asarray(sums, dtype=np.float64)
    classes, rest = divmod(sums.shape[-1] - 1, 3)
    if rest or classes < 1:
        raise ValueError(f"{sums.shape[-1]} columns are no label counts: they have 3 a label and one more")
    return np.moveaxis(sums[..., :-1].reshape(*sums.shape[:-1], 3, classes), -2, -1)
