"""Three-part hinge loss on cosine scores of query-product pairs ("Web-scale Semantic Product Search", equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor

POSITIVE, HARD_NEGATIVE, RANDOM_NEGATIVE = 1, 0, -1
"""Labels of a pair: bought; shown without interaction; drawn from the catalogue."""


def three_part_hinge(
    scores: Tensor,
    labels: Tensor,
    positive: float = 0.9,
    hard_upper: float = 0.55,
    hard_lower: float = 0.2,
    random_upper: float = 0.2,
) -> Tensor:
    """Push positives above a score, random negatives below one, and hold hard negatives in a band between.

    Shown but not bought is no proof of irrelevance, hence the band. The mean is over pairs, as eq. 1 is one pair's.

    Args:
        scores: cosine of each pair, any shape.
        labels: of the same shape: 1 positive, 0 hard negative, -1 random negative.
        positive: a positive below it costs its distance.
        hard_upper: a hard negative above it costs its distance.
        hard_lower: a hard negative below it costs its distance.
        random_upper: a random negative above it costs its distance.

    Raises:
        ValueError: if the shapes differ, or a label is something else.

    Example:
        >>> scores = torch.tensor([0.5, 0.75, 0.1, 0.3])
        >>> round(three_part_hinge(scores, torch.tensor([1, 0, 0, -1])).item(), 4)
        0.2
    """
    if scores.shape != labels.shape:
        raise ValueError(f"scores have the shape {tuple(scores.shape)}, labels {tuple(labels.shape)}: one label a pair")
    is_positive, is_hard = labels == POSITIVE, labels == HARD_NEGATIVE
    if not bool((is_positive | is_hard | (labels == RANDOM_NEGATIVE)).all()):
        raise ValueError("labels must be 1 (positive), 0 (hard negative) or -1 (random negative)")
    low = (positive - scores).clamp(min=0)
    band = (hard_lower - scores).clamp(min=0) + (scores - hard_upper).clamp(min=0)
    high = (scores - random_upper).clamp(min=0)
    return torch.where(is_positive, low, torch.where(is_hard, band, high)).mean()
