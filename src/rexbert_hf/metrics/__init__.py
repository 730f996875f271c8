"""Metrics: pure functions and accumulators over numpy arrays. This room imports no other."""

from __future__ import annotations

from rexbert_hf.metrics.binary import accuracy, binary_f1, matthews
from rexbert_hf.metrics.bootstrap import Difference, holm, paired_difference, resample_scores, resample_sums
from rexbert_hf.metrics.correlation import average_ranks, pearson, spearman
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
    "accuracy",
    "average_ranks",
    "binary_f1",
    "bootstrap_interval",
    "condense",
    "grades_of",
    "holm",
    "judged_at_k",
    "label_ranks",
    "label_shares",
    "masked_accuracy",
    "matthews",
    "mrr_at_k",
    "ndcg_at_k",
    "paired_difference",
    "pearson",
    "recall_at_k",
    "resample_scores",
    "resample_sums",
    "sparse_results",
    "spearman",
    "token_kinds",
]
