"""Triplets as model inputs: clean contents behind the masked rows, and which tokens take part in reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.objectives.triplets import TripletRows

IGNORED = -100


def triplet_inputs(
    inputs: Mapping[str, Any], batch: TripletRows, special_ids: np.ndarray, pad_id: int | None, pad_left: bool = False
) -> dict[str, Any]:
    """A collated batch with `triplets` and `content_mask`, and with the clean contents as further documents.

    Every key that ends in `input_ids` gets the contents, every one that ends in `labels` gets no label for them: a
    batch that holds two maskings keeps both.

    Args:
        inputs: the masked rows, flat or padded.
        batch: they came from it.
        special_ids: ids that never take part.
        pad_id: of padded batches.
        pad_left: whether they are padded on the left.
    """
    rows = [batch] if batch.clean is None else [batch, batch.clean]
    used = np.zeros(sum(len(part) for part in rows), dtype=bool)
    used[batch.triplets] = True
    content = np.concatenate([_content(part, special_ids) for part in rows])
    content &= np.repeat(used, np.concatenate([part.lengths for part in rows]))
    if "cu_seq_lens_q" in inputs:
        out = dict(inputs) if batch.clean is None else _with_flat(inputs, batch.clean)
        mask = torch.from_numpy(content)[None]
    else:
        lengths = np.concatenate([part.lengths for part in rows])
        width = max(int(lengths.max()), inputs["input_ids"].shape[1])
        out = _with_padded(inputs, batch.clean, width, 0 if pad_id is None else pad_id, pad_left)
        mask = torch.from_numpy(_padded(content, lengths, width, 0, pad_left).astype(bool))
    return out | {"triplets": torch.from_numpy(batch.triplets), "content_mask": mask}


def _content(batch: RowBatch, special_ids: np.ndarray) -> np.ndarray:
    """Tokens of the content, bool `[T]`; the rows are as they were before masking, so masked tokens belong to it."""
    content = ~np.isin(batch.input_ids, special_ids)
    return content if batch.word_ids is None else content & (batch.word_ids >= 0)


def _with_flat(inputs: Mapping[str, Any], clean: RowBatch) -> dict[str, Any]:
    ids = torch.from_numpy(clean.input_ids.astype(np.int64))[None]
    added = {"input_ids": ids, "labels": torch.full_like(ids, IGNORED)}
    added["position_ids"] = torch.from_numpy(clean.position_ids)[None]
    out = dict(inputs)
    for key, value in inputs.items():
        for name, more in added.items():
            if key.endswith(name):
                out[key] = torch.cat([value, more], dim=1)
        if key.startswith("cu_seq_lens"):
            out[key] = torch.cat([value, value[-1] + torch.from_numpy(clean.offsets[1:].astype(np.int32))])
        if key.startswith("max_length"):
            out[key] = max(int(value), int(clean.lengths.max()))
    return out


def _padded(values: np.ndarray, lengths: np.ndarray, width: int, fill: int, left: bool) -> np.ndarray:
    place = np.arange(width)[::-1] if left else np.arange(width)
    out = np.full((len(lengths), width), fill, dtype=np.int64)
    out[place < lengths[:, None]] = values
    return out


def _with_padded(
    inputs: Mapping[str, Any], clean: RowBatch | None, width: int, pad_id: int, left: bool
) -> dict[str, Any]:
    fills = {"input_ids": pad_id, "labels": IGNORED, "attention_mask": 0}
    if clean is None:
        return dict(inputs)
    values = {"input_ids": clean.input_ids, "labels": np.full(len(clean.input_ids), IGNORED)}
    values["attention_mask"] = np.ones(len(clean.input_ids), dtype=np.int64)
    out = dict(inputs)
    for key, value in inputs.items():
        for name, fill in fills.items():
            if key.endswith(name):
                more = torch.from_numpy(_padded(values[name], clean.lengths, width, fill, left))
                missing = width - value.shape[1]
                pads = (missing, 0) if left else (0, missing)
                out[key] = torch.cat([torch.nn.functional.pad(value, pads, value=fill), more])
    return out
