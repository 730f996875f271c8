"""Encoding many texts with a RexBERT SentenceTransformer: flat batches of equal token counts, no padding anywhere.

Stock `encode` sorts by characters, cuts batches of equal row counts and pads them. Here texts are tokenised first and
sorted by tokens, and a batch holds as many as fit a token budget, so short titles go by the hundred and long
descriptions by the few. The modules of the model are run as they are (pooling reads the flat batch), so the vectors are
those of `model.encode`, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np

BATCH_TOKENS = 4_096
"""Tokens a batch: its hidden states stay in a server core's cache."""

GPU_BATCH_TOKENS = 65_536

TOKENISE_ROWS = 4_096
"""Texts tokenised at a time."""

Bfloat16 = bool | Literal["auto"]
"""Whether to run in bfloat16; "auto" where a GPU multiplies it fast."""

_ROLE_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}


def takes_flat_batches(model: Any) -> bool:
    """Whether a model is a SentenceTransformer around a RexBERT encoder: then `encode_flat` serves it.

    Args:
        model: anything.
    """
    children = [module for _, module in model.named_children()] if hasattr(model, "named_children") else []
    if len(children) < 2 or type(children[1]).__name__ != "Pooling":
        return False
    encoder = getattr(children[0], "model", None)
    return type(encoder).__name__ == "RexBertModel" and hasattr(model, "tokenizer")


def runs_bfloat16(model: Any, wanted: Bfloat16) -> bool:
    """Whether `encode_flat` runs a model under bfloat16 autocast; one in half precision stays as it is.

    Args:
        model: a SentenceTransformer.
        wanted: "auto" takes it on a GPU that multiplies it fast: only there flat batches reach the flash kernel.
    """
    import torch

    weight = next(model.parameters())
    if weight.dtype != torch.float32:
        return False
    on_gpu = weight.device.type == "cuda"
    return on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) if wanted == "auto" else wanted


def encode_flat(
    model: Any,
    texts: Sequence[str],
    role: str | None = None,
    batch_tokens: int | None = None,
    bf16: Bfloat16 = "auto",
) -> np.ndarray:
    """Encode texts in flat batches; float32 `[N, D]`, in the order of the texts.

    Args:
        model: a SentenceTransformer for which `takes_flat_batches` holds.
        texts: at least one.
        role: "query" or "document" puts the model's prompt of that name first.
        batch_tokens: tokens a batch; by default what suits the device.
        bf16: see `runs_bfloat16`.

    Raises:
        ValueError: if the model is another one.
    """
    import torch

    if not takes_flat_batches(model):
        raise ValueError("encode_flat takes a SentenceTransformer with a RexBERT encoder and pooling; use model.encode")
    device = next(model.parameters()).device
    budget = batch_tokens or (BATCH_TOKENS if device.type == "cpu" else GPU_BATCH_TOKENS)
    autocast = torch.autocast(device.type, torch.bfloat16) if runs_bfloat16(model, bf16) else nullcontext()
    prompt = _prompt(model, role)
    if prompt and not model[1].include_prompt:
        with autocast:
            return np.asarray(model.encode(list(texts), prompt=prompt, show_progress_bar=False), dtype=np.float32)
    rows = _token_ids(model, [prompt + text for text in texts])
    lengths = np.array([len(row) for row in rows])
    vectors: np.ndarray | None = None
    training = model.training
    model.eval()
    with torch.inference_mode(), autocast:
        for batch in _batches(lengths, budget):
            out = model(_features([rows[i] for i in batch], device))["sentence_embedding"]
            if model.truncate_dim is not None:
                out = out[..., : model.truncate_dim]
            if vectors is None:
                vectors = np.empty((len(rows), out.shape[1]), dtype=np.float32)
            vectors[batch] = out.float().cpu().numpy()
    model.train(training)
    return np.zeros((0, model.get_embedding_dimension()), np.float32) if vectors is None else vectors


def _prompt(model: Any, role: str | None) -> str:
    """As sentence-transformers has it: the first name that is there counts, even with an empty text."""
    prompts = getattr(model, "prompts", None) or {}
    names = (*_ROLE_PROMPTS.get(role or "", ()), getattr(model, "default_prompt_name", None))
    return next((prompts[name] or "" for name in names if name in prompts), "")


def _token_ids(model: Any, texts: list[str]) -> list[np.ndarray]:
    rows: list[np.ndarray] = []
    options: dict[str, Any] = {"padding": False, "truncation": True, "max_length": model.max_seq_length}
    for start in range(0, len(texts), TOKENISE_ROWS):
        part = texts[start : start + TOKENISE_ROWS]
        found = model.tokenizer(part, **options, return_attention_mask=False, return_token_type_ids=False)
        rows += [np.array(ids, dtype=np.int64) for ids in found["input_ids"]]
    return rows


def _batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Indexes of texts, longest first, as many as fit the budget (at least one)."""
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        yield order[start:stop]
        start = stop


def _features(rows: list[np.ndarray], device: Any) -> dict[str, Any]:
    import torch

    lengths = np.array([len(row) for row in rows])
    borders = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)).to(device)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    positions = torch.from_numpy(np.arange(int(lengths.sum())) - starts)[None].to(device)
    longest = int(lengths.max())
    return {
        "input_ids": torch.from_numpy(np.concatenate(rows))[None].to(device),
        "position_ids": positions,
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
        "modality": "text",
    }
