"""Metrics: pure functions and accumulators over numpy arrays. This room imports no other."""

from __future__ import annotations

from rexbert_hf.metrics.counts import NeighbourCountBaseline, UnigramBaseline
from rexbert_hf.metrics.masked_tokens import MaskedTokenCounts, label_ranks, masked_accuracy, token_kinds

__all__ = [
    "MaskedTokenCounts",
    "NeighbourCountBaseline",
    "UnigramBaseline",
    "label_ranks",
    "masked_accuracy",
    "token_kinds",
]
