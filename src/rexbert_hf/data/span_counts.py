"""What guides marked in a tokenised data set: spans by kind, rows that have them, rows without a phrase, spans lost.

Counted where characters become tokens, in whichever process that is, so that a pool that says little of a corpus, or
phrases that a tokenizer cannot represent, are seen before training falls back to words.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import numpy as np

from rexbert_hf.data.rows import SPAN_KINDS

SpanCounts: TypeAlias = "Counter[tuple[str, str]]"
"""Counts by group and name; groups: spans, rows, left out."""
PHRASE_KINDS = ("phrase", "noun_phrase")
"""Kinds that phrase masking samples from."""


def count_spans(kind: np.ndarray, row: np.ndarray, num_rows: int) -> SpanCounts:
    """Count the spans of some rows.

    Args:
        kind: of each span, an index into `SPAN_KINDS`.
        row: of each span.
        num_rows: rows, with or without spans.
    """
    counts: SpanCounts = Counter()
    counts["rows", "all"] = num_rows
    for index, name in enumerate(SPAN_KINDS):
        counts["spans", name] = int((kind == index).sum())
        counts["rows", name] = len(np.unique(row[kind == index]))
    phrases = np.isin(kind, [SPAN_KINDS.index(name) for name in PHRASE_KINDS])
    counts["rows", "without_phrase"] = num_rows - len(np.unique(row[phrases]))
    return counts


def span_report(counts: SpanCounts) -> dict[str, dict[str, int]]:
    """Counts as they stand in a manifest: nested, without zeros.

    Args:
        counts: added up over all rows.

    >>> span_report(count_spans(np.array([0, 0, 4]), np.array([0, 0, 1]), 3))
    {'rows': {'all': 3, 'phrase': 1, 'price': 1, 'without_phrase': 2}, 'spans': {'phrase': 2, 'price': 1}}
    """
    report: dict[str, dict[str, int]] = {}
    for (group, name), count in sorted(counts.items()):
        if count:
            report.setdefault(group.replace(" ", "_"), {})[name.replace(" ", "_")] = count
    return report
