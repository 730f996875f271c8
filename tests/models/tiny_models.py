"""Tiny models and batches that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch

from rexbert_hf import RexBertConfig

VOCABULARY = 97
PAD = 0

LENGTHS = [64, 1, 65, 400, 66, 5, 128, 320, 1, 321, 5]
"""Documents around the borders of the window (64), of the blocks (128) and of the dense local mask (320)."""

SHORT_LENGTHS = [64, 1, 65, 5, 140, 66, 1, 5]
"""The same without the long ones, for the slow back-end ("eager" pads every document to the longest)."""


def tiny_config(**overrides: Any) -> RexBertConfig:
    """Four layers (global, local, local, global) with the published window of 128."""
    fields: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "pad_token_id": PAD,
        "cls_token_id": 1,
        "bos_token_id": 1,
        "sep_token_id": 2,
        "eos_token_id": 2,
        "max_position_embeddings": 512,
        # The published spread gives nearly uniform attention at this width, which would hide mistakes.
        "initializer_range": 0.2,
    }
    return RexBertConfig(**{**fields, **overrides})


def build(model_class: Any, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any) -> Any:
    """A model in evaluation mode with weights that depend on `seed` only."""
    attention = overrides.pop("attn_implementation", None)
    config = tiny_config(**overrides)
    torch.manual_seed(seed)
    kwargs = {} if attention is None else {"attn_implementation": attention}
    model = model_class._from_config(config, dtype=dtype, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                # Norm weights of one and biases of zero would hide a swap of either.
                parameter.add_(0.1 * torch.randn(parameter.shape, dtype=dtype))
    return model.eval()


def documents(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    """Random token ids `[n]` of each length, special tokens left out."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator) for n in lengths]


def flat_batch(docs: list[torch.Tensor], keys: str = "all") -> dict[str, Any]:
    """A flat batch: with "all" its keys, with "positions" only position_ids, with "borders" only cu_seq_lens."""
    lengths = torch.tensor([len(d) for d in docs])
    borders = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).int()
    batch: dict[str, Any] = {"input_ids": torch.cat(docs)[None]}
    if keys in ("all", "positions"):
        batch["position_ids"] = torch.cat([torch.arange(len(d)) for d in docs])[None]
    if keys in ("all", "borders"):
        longest = int(lengths.max())
        batch.update(cu_seq_lens_q=borders, cu_seq_lens_k=borders, max_length_q=longest, max_length_k=longest)
    return batch


def padded_batch(docs: list[torch.Tensor], side: str = "right", extra: int = 0) -> dict[str, torch.Tensor]:
    """A padded batch `[B, S]`, S = longest document + extra; padding holds a token that is not the pad token."""
    length = max(len(d) for d in docs) + extra
    ids, mask = torch.full((len(docs), length), 7), torch.zeros(len(docs), length, dtype=torch.long)
    for row, doc in enumerate(docs):
        place = slice(0, len(doc)) if side == "right" else slice(length - len(doc), length)
        ids[row, place], mask[row, place] = doc, 1
    return {"input_ids": ids, "attention_mask": mask}


def split_flat(x: torch.Tensor, docs: list[torch.Tensor]) -> list[torch.Tensor]:
    """`[1, T, ...]` to one `[n, ...]` a document."""
    return list(x[0].split([len(d) for d in docs]))


def split_padded(x: torch.Tensor, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """`[B, S, ...]` to one `[n, ...]` a document."""
    return [row[mask.bool()] for row, mask in zip(x, batch["attention_mask"], strict=True)]
