"""Batches of rows of like length, padded to the longest of their own, or flat without any padding.

Padding is what a fine-tuning step on CPU mostly computes when rows are drawn at random; rows are therefore sorted
within pools of some batches, which leaves the order of batches, and nearly all of their members, to chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

POOL = 24
"""Batches that are sorted together."""


@dataclass
class Feature:
    """One encoded text, or one window of a long context.

    Attributes:
        row: number of the row that it comes from.
        ids: token ids with special tokens.
        types: segment of each token, where the tokenizer has segments.
        target: what the head learns, see `fine_tuning_heads`.
        places: head "token": the token that stands for each word, -1 for none; "span": characters of each token in
            the context, `[N, 2]`, -1 outside.
    """

    row: int
    ids: Sequence[int]
    types: Sequence[int] | None = None
    target: Any = None
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def bucketed(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of one epoch: every row once, rows of like length together, batches in random order.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch; the last of a pool may have fewer.
        rng: decides the order.

    Example:
        >>> batches = bucketed(np.array([9, 2, 8, 3]), 2, np.random.default_rng(0))
        >>> sorted(sorted(batch.tolist()) for batch in batches)
        [[0, 2], [1, 3]]
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Batches for prediction: all rows, longest first.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def padded(features: Sequence[Feature], pad_id: int) -> dict[str, Any]:
    """Inputs `[B, S]` with their attention mask, padded on the right.

    Args:
        features: of one batch.
        pad_id: the padding token.

    Example:
        >>> padded([Feature(0, [5, 6, 7]), Feature(1, [8])], pad_id=0)["input_ids"].tolist()
        [[5, 6, 7], [8, 0, 0]]
    """
    width = max(len(one.ids) for one in features)
    batch = {
        "input_ids": _right([one.ids for one in features], width, pad_id),
        "attention_mask": _right([[1] * len(one.ids) for one in features], width, 0),
    }
    if features[0].types is not None:
        batch["token_type_ids"] = _right([one.types or [] for one in features], width, 0)
    return batch


def _right(rows: Sequence[Sequence[int]], width: int, filler: int) -> Tensor:
    full = np.full((len(rows), width), filler, dtype=np.int64)
    for line, row in zip(full, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(full)


def flat(features: Sequence[Feature]) -> dict[str, Any]:
    """The batch as one row of documents, as RexBERT takes it.

    Args:
        features: of one batch.

    Example:
        >>> batch = flat([Feature(0, [5, 6, 7]), Feature(1, [8])])
        >>> batch["input_ids"].tolist(), batch["cu_seq_lens_q"].tolist(), batch["position_ids"].tolist()
        ([[5, 6, 7, 8]], [0, 3, 4], [[0, 1, 2, 0]])
    """
    lengths = np.array([len(one.ids) for one in features])
    borders = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))
    positions = np.concatenate([np.arange(n) for n in lengths])
    longest = int(lengths.max())
    return {
        "input_ids": torch.tensor([token for one in features for token in one.ids])[None],
        "position_ids": torch.from_numpy(positions)[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def tags(features: Sequence[Feature], is_flat: bool) -> Tensor:
    """Token labels in the shape of the inputs, -100 where nothing is learnt.

    Args:
        features: of one batch, whose targets are one number a token.
        is_flat: `[1, T]` instead of `[B, S]`.
    """
    if is_flat:
        return torch.from_numpy(np.concatenate([one.target for one in features]))[None]
    width = max(len(one.ids) for one in features)
    return _right([one.target for one in features], width, -100)
