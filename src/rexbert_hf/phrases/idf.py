"""Inverse document frequency as a guide: rare tokens are worth predicting, tokens of every document are not.

It works on token ids, after tokenising, so it is a table [vocab] for a collator and not a guide of text spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class InverseDocumentFrequency:
    """Document and token counts, and the weight table they give.

    weight(t) = (ln((1 + N) / (1 + df_t)) + 1) / mean, with the mean taken over all non-special tokens of the corpus:
    so the weights average 1 over running text, and a collator that multiplies by them keeps its budget. Counts of
    shards add up with `merge`.

    Attributes:
        document_counts: documents that contain each token, int64 `[vocab]`.
        token_counts: occurrences of each token, int64 `[vocab]`.
        num_documents: documents seen.
        special_ids: tokens that are never masked; their weight is 0 and they do not enter the mean.
    """

    def __init__(self, vocab_size: int, special_ids: Sequence[int] = ()) -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1; got {vocab_size}")
        self.document_counts = np.zeros(vocab_size, dtype=np.int64)
        self.token_counts = np.zeros(vocab_size, dtype=np.int64)
        self.num_documents = 0
        self.special_ids = np.array(sorted(set(special_ids)), dtype=np.int64)

    @classmethod
    def fit(cls, rows: Iterable[Any], vocab_size: int, special_ids: Sequence[int] = ()) -> InverseDocumentFrequency:
        """Count a stream of tokenised documents.

        Args:
            rows: row batches (with `input_ids` and `offsets`), row dicts (with `input_ids`), or plain sequences of
                ids, one document each.
            vocab_size: length of the table.
            special_ids: tokens that are never masked.

        Raises:
            ValueError: if an id is outside the vocabulary.

        >>> idf = InverseDocumentFrequency.fit([[0, 5, 5, 7], [0, 5, 8]], vocab_size=9, special_ids=[0])
        >>> [f"{weight:.2f}" for weight in idf.table[[0, 5, 7, 8]]]
        ['0.00', '0.86', '1.21', '1.21']
        """
        counts = cls(vocab_size, special_ids)
        for row in rows:
            counts.update(row)
        return counts

    def update(self, row: Any) -> None:
        """Count one row batch, one row or one sequence of ids."""
        ids = np.asarray(row["input_ids"] if isinstance(row, dict) else getattr(row, "input_ids", row), dtype=np.int64)
        offsets = getattr(row, "offsets", None)
        lengths = np.array([len(ids)]) if offsets is None else np.diff(offsets)
        size = len(self.document_counts)
        if len(ids) and not 0 <= ids.min() <= ids.max() < size:
            bad = ids[(ids < 0) | (ids >= size)][0]
            raise ValueError(f"token id {bad} is outside a vocabulary of {size}; give the tokenizer's len()")
        documents = np.repeat(np.arange(len(lengths)), lengths)
        self.document_counts += np.bincount(np.unique(documents * size + ids) % size, minlength=size)
        self.token_counts += np.bincount(ids, minlength=size)
        self.num_documents += len(lengths)

    def merge(self, other: InverseDocumentFrequency) -> InverseDocumentFrequency:
        """Add the counts of another shard to this one and return it."""
        if len(other.document_counts) != len(self.document_counts):
            sizes = f"{len(self.document_counts)} and {len(other.document_counts)}"
            raise ValueError(f"cannot merge counts of vocabularies of {sizes} tokens")
        self.document_counts += other.document_counts
        self.token_counts += other.token_counts
        self.num_documents += other.num_documents
        return self

    @property
    def table(self) -> np.ndarray:
        """Weights, float32 `[vocab]`, with mean 1 over the tokens of the corpus; all 1 when nothing was counted."""
        weights = np.log((1.0 + self.num_documents) / (1.0 + self.document_counts)) + 1.0
        counts = self.token_counts.copy()
        counts[self.special_ids] = 0
        mean = (weights * counts).sum() / counts.sum() if counts.sum() else 1.0
        weights = weights / mean
        weights[self.special_ids] = 0.0
        return weights.astype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.table.astype(np.float32 if dtype is None else dtype)
