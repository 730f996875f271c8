"""Metrics: pure functions and accumulators over numpy arrays. This room imports no other."""

from __future__ import annotations

from rexbert_hf.metrics.bootstrap import Difference, holm, paired_difference, resample_scores, resample_sums
from rexbert_hf.metrics.counts import NeighbourCountBaseline, UnigramBaseline
from rexbert_hf.metrics.masked_tokens import MaskedTokenCounts, label_ranks, masked_accuracy, token_kinds
from rexbert_hf.metrics.retrieval import (
    Judgements,
    bootstrap_interval,
    condense,
    grades_of,
    judged_at_k,
    label_shares,
    mrr_at_k,
    ndcg_at_k,
    recall_at_k,
    sparse_results,
)

__all__ = [
    "Difference",
    "Judgements",
    "MaskedTokenCounts",
    "NeighbourCountBaseline",
    "UnigramBaseline",
    "bootstrap_interval",
    "condense",
    "grades_of",
    "holm",
    "judged_at_k",
    "label_ranks",
    "label_shares",
    "masked_accuracy",
    "mrr_at_k",
    "ndcg_at_k",
    "paired_difference",
    "recall_at_k",
    "resample_scores",
    "resample_sums",
    "sparse_results",
    "token_kinds",
]
