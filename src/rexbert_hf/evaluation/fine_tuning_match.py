"""The head for rare matches: two classes, and a cut between them that the dev split decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rexbert_hf.evaluation.fine_tuning_batches import Feature
from rexbert_hf.evaluation.fine_tuning_heads import SequenceHead, last_layer
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.metrics.binary import best_f1_cut, binary_f1


class MatchHead(SequenceHead):
    """The second of two classes or not, from the cut that gives the dev split its best F1.

    Matches are rare, and after few steps no pair may have even odds although the order is good.
    """

    name = "match"
    settles = True

    def __init__(self, labels: Sequence[str] = ()) -> None:
        super().__init__(labels)
        if len(self.labels) != 2:
            raise ValueError(f'the head "match" takes two classes, got {len(self.labels)}')
        self.cut = 0.0

    def answers(self, logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row]) -> Any:
        """Class numbers, int64 `[N]`."""
        return (_margins(logits) > self.cut).astype(np.int64)

    def settle(self, logits: Sequence[np.ndarray], rows: Sequence[Row]) -> None:
        """Choose the cut."""
        self.cut = best_f1_cut(_margins(logits), [self.number[row.label] for row in rows])

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Move the cut into the bias: then it lies at even odds."""
        last = last_layer(model, 2)
        if last is not None:
            last.bias[1] -= self.cut
            self.cut = 0.0

    def score(self, answers: Any, rows: Sequence[Row]) -> float:
        """F1 of the second class."""
        return binary_f1([self.number[row.label] for row in rows], answers)


def _margins(logits: Sequence[np.ndarray]) -> np.ndarray:
    both = np.stack(logits).astype(np.float64)
    return both[:, 1] - both[:, 0]
