"""Padded micro-batches cut by length, for models that take no flat batch.

A micro-batch is packed by tokens, long documents beside short ones; padded to its longest it would hold many times as
many slots. So its documents are sorted by length and go through the model in parts, none larger than the micro-batch
may be. The loss is a sum over the step's count, so the parts' gradients add up to the same.

The parts travel end to end, `[1, N]`, with their shapes beside them: what counts labels or swaps a masking finds the
tensors of one batch, and the model's inputs are views of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rexbert_hf.data.batch import Batch

PARTS = "part_shapes"
"""Key of the (rows, columns) of each part."""


def length_parts(lengths: np.ndarray, most: int, multiple: int = 1) -> list[np.ndarray]:
    """Documents of each part, longest first: its padded size is at most `most`, and more than half of it tokens.

    Args:
        lengths: tokens of each document.
        most: slots of a part, padding counted (a longer document is a part of its own).
        multiple: rows are padded to a multiple of this, which counts as padding.

    Example:
        >>> [part.tolist() for part in length_parts(np.array([2, 9, 3, 8, 2]), most=20)]
        [[1, 3], [2, 0, 4]]
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    sizes = lengths[order].astype(np.int64)
    parts, start = [], 0
    while start < len(order):
        longest = max(1, int(sizes[start]))
        fitting = max(1, most // (-(-longest // multiple) * multiple))
        alike = int(np.searchsorted(-sizes, -longest / 2, side="left")) - start  # those longer than half of it
        stop = start + max(1, min(fitting, alike))
        parts.append(order[start:stop])
        start = stop
    return parts


def cut_by_length(batch: Mapping[str, Any], most: int, left: bool = False, multiple: int = 1) -> Batch:
    """A padded batch in parts; as it is where it is one part anyway.

    Args:
        batch: `attention_mask` `[B, S]`; other tensors `[B, S]` are cut like it, `[B]` by row.
        most: slots of a part.
        left: whether rows are padded on the left.
        multiple: rows are padded to a multiple of this.

    Returns:
        Tensors `[1, N]` (`[B]` for those of rows), the parts end to end, and their shapes under `PARTS`.
    """
    mask = batch["attention_mask"]
    rows, width = mask.shape
    lengths = mask.sum(1).numpy()
    parts = length_parts(lengths, most, multiple)
    if len(parts) == 1:
        return Batch(batch)
    widths = [-(-max(1, int(lengths[part[0]])) // multiple) * multiple for part in parts]
    columns = [slice(width - wide, None) if left else slice(0, wide) for wide in widths]
    chosen = [torch.from_numpy(part) for part in parts]
    out = Batch()
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.shape == mask.shape:
            cut = [value[at, places].reshape(-1) for at, places in zip(chosen, columns, strict=True)]
            out[name] = torch.cat(cut)[None]
        elif isinstance(value, torch.Tensor) and value.dim() == 1 and len(value) == rows:
            out[name] = value[torch.cat(chosen)]
        else:
            out[name] = value
    out[PARTS] = [[len(part), wide] for part, wide in zip(parts, widths, strict=True)]
    return out


def parts_of(batch: Mapping[str, Any], documents: int | None = None) -> list[Mapping[str, Any]]:
    """The model's inputs of each part, views of the batch; the batch itself where it was not cut.

    Args:
        batch: a collated micro-batch.
        documents: that it holds, where that is known.

    Raises:
        ValueError: if its documents lie in one row, and neither shapes nor borders tell them apart.

    Example:
        >>> ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
        >>> [part["input_ids"].tolist() for part in parts_of({"input_ids": ids, PARTS: [[1, 3], [2, 2]]})]
        [[[1, 2, 3]], [[4, 5], [6, 7]]]
    """
    if PARTS not in batch:
        borders = {"cu_seq_lens_q", "position_ids"} & batch.keys()
        if (documents or 1) > 1 and len(batch.get("input_ids", ())) == 1 and not borders:
            raise ValueError(
                f"a micro-batch of {documents} documents lost its '{PARTS}', and they would be read as one: keep that"
                " key where inputs are replaced"
            )
        return [batch]
    shapes = batch[PARTS]
    sizes, rows = [math.prod(shape) for shape in shapes], [shape[0] for shape in shapes]
    out: list[dict[str, Any]] = [{} for _ in shapes]
    for name, value in batch.items():
        if name == PARTS:
            continue
        cut: Any = [value] * len(shapes)
        if isinstance(value, torch.Tensor) and tuple(value.shape) == (1, sum(sizes)):
            cut = [piece.view(*shape) for piece, shape in zip(value[0].split(sizes), shapes, strict=True)]
        elif isinstance(value, torch.Tensor) and tuple(value.shape) == (sum(rows),):
            cut = value.split(rows)
        for part, piece in zip(out, cut, strict=True):
            part[name] = piece
    return list(out)


def slots_of(batch: Mapping[str, Any]) -> int:
    """Slots that a padded batch takes in the model, padding counted.

    Args:
        batch: a collated micro-batch, in parts or not.
    """
    return sum(math.prod(shape) for shape in batch[PARTS]) if PARTS in batch else int(batch["input_ids"].numel())
