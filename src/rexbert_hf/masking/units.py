"""Masking units: the runs of tokens that are masked together or not at all (words, and spans of whole words).

Units partition the batch, special tokens included (they are units that nobody selects), so a unit is known by the
index of its first token and a token by the number of its unit. Everything is vectorised over the whole batch.
"""

from __future__ import annotations

import numpy as np
import torch

from rexbert_hf.data.rows import RowBatch


def word_starts(batch: RowBatch, eligible: np.ndarray) -> np.ndarray:
    """Mark the first token of each word, bool `[T]`; without `word_ids` each token is a word.

    A word ends where `word_ids` changes, at a row's border and at a special token.

    Args:
        batch: the rows.
        eligible: bool `[T]`, False for special tokens.

    Example:
        >>> batch = RowBatch.from_rows([{"input_ids": [1, 7, 8, 9, 2], "word_ids": [-1, 0, 0, 1, -1]}])
        >>> word_starts(batch, batch.word_ids >= 0).astype(int).tolist()
        [1, 1, 0, 1, 1]
    """
    if batch.word_ids is None:
        return np.ones(len(batch.input_ids), dtype=bool)
    starts = row_starts(batch)
    starts[1:] |= batch.word_ids[1:] != batch.word_ids[:-1]
    starts[1:] |= eligible[1:] != eligible[:-1]
    return starts


def row_starts(batch: RowBatch) -> np.ndarray:
    """Mark the first token of each row, bool `[T]`.

    Example:
        >>> row_starts(RowBatch.from_rows([{"input_ids": [1, 2]}, {"input_ids": [1]}])).tolist()
        [True, False, True]
    """
    starts = np.zeros(len(batch.input_ids), dtype=bool)
    first = batch.offsets[:-1]
    starts[first[first < len(starts)]] = True  # an empty last row starts past the end
    return starts


def number_units(starts: np.ndarray) -> np.ndarray:
    """Number of the unit of each token, int64 `[T]`, from the marks of the first tokens.

    Example:
        >>> number_units(np.array([True, False, True])).tolist()
        [0, 0, 1]
    """
    # torch's cumsum takes a third of the time of numpy's.
    index = torch.cumsum(torch.from_numpy(starts), 0).numpy()
    index -= 1
    return index
