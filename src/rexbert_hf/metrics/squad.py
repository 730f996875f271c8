"""SQuAD 1.1: exact match, F1, precision and recall of answers, question by question.

Answers are compared after the official script's normalisation (lower case, no ASCII punctuation, no articles, single
blanks). Exact match and F1 each take their best gold answer, as the script does; it prints no precision and recall,
which E-BERT reports, so those are of the answer that gives F1 (the first of equals). The mean of F1 over questions is
not the harmonic mean of mean precision and mean recall: most rows of E-BERT's table 2 hold the latter, and
`harmonic_f1` gives it.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

SQUAD_COLUMNS = ("exact_match", "f1", "precision", "recall")
"""What the columns of `squad_scores` hold."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Bring an answer to the form in which answers are compared.

    Example:
        >>> normalize_answer("The  U.S. dollar!")
        'us dollar'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def answer_overlap(predicted: str, gold: str) -> tuple[float, float, float]:
    """F1, precision and recall of the normalised words, with repetitions; zeros where no word is shared.

    Example:
        >>> answer_overlap("a very fast disk", "fast disk")
        (0.8, 0.6666666666666666, 1.0)
    """
    found, true = normalize_answer(predicted).split(), normalize_answer(gold).split()
    shared = sum((Counter(found) & Counter(true)).values())
    if not shared:  # also for two empty answers: the official script gives those an exact match and an F1 of 0
        return 0.0, 0.0, 0.0
    precision, recall = shared / len(found), shared / len(true)
    return 2 * precision * recall / (precision + recall), precision, recall


def squad_scores(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> np.ndarray:
    """Exact match, F1, precision and recall of each question, in [0, 1], float64 `[n, 4]`; means give the figures.

    Args:
        predicted: one answer a question.
        gold: one or more answers a question.

    Raises:
        ValueError: if the numbers differ, or a question has no gold answer.

    Example:
        >>> squad_scores(["the screen"], [["screen", "bright screen"]]).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} answers to {len(gold)} questions: give one each")
    scores = np.zeros((len(gold), 4))
    for row, (answer, truths) in enumerate(zip(predicted, gold, strict=True)):
        if not len(truths) or isinstance(truths, str):
            raise ValueError(f"question {row} has no list of gold answers ({truths!r}): SQuAD 1.1 needs one or more")
        normal = normalize_answer(answer)
        exact = any(normal == normalize_answer(truth) for truth in truths)
        scores[row] = (
            float(exact),
            *max((answer_overlap(answer, truth) for truth in truths), key=lambda best: best[0]),
        )
    return scores


def harmonic_f1(scores: np.ndarray) -> float:
    """Harmonic mean of mean precision and mean recall of `squad_scores`.

    Example:
        >>> round(harmonic_f1(np.array([[0, 0.5, 1.0, 0.25], [0, 0.5, 0.25, 1.0]])), 6)
        0.625
    """
    precision, recall = scores[:, 2].mean(), scores[:, 3].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
