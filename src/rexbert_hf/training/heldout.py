"""Masked-token loss and accuracy on held-out documents, with masks that never change.

Sums are divided by counts at the very end, so batches, ranks and padding do not weight the result. Documents are cut
into pieces of `seq_length` as in training, sorted by length and batched by padded size; flat and padded models thus
see the same masks.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rexbert_hf.data.pieces import PieceIndex
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import MLMCollator

logger = logging.getLogger(__name__)

_COMPARED = 4
"""Labelled places at which logits are compared with what the output layer returned."""


def accepts_flat(model: nn.Module) -> bool:
    """Whether a model takes flat batches: only RexBERT classes keep packed documents apart on every back-end.

    Args:
        model: any model.

    Example:
        >>> accepts_flat(torch.nn.Linear(1, 1))
        False
    """
    return getattr(getattr(model, "config", None), "model_type", "") == "rexbert"


def length_batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Indices of pieces, longest first, in batches of bounded padded size.

    Args:
        lengths: tokens of each piece.
        batch_tokens: most tokens of a batch, padding counted (a longer piece is a batch of its own).

    Example:
        >>> [batch.tolist() for batch in length_batches(np.array([2, 9, 3, 2]), batch_tokens=8)]
        [[1], [2, 0], [3]]
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def held_out_pieces(store: TokenisedDataset, seq_length: int, max_tokens: int | None) -> list[np.ndarray]:
    """Row, start, stop and length of each piece, in document order, up to `max_tokens`.

    Args:
        store: the documents.
        seq_length: longest piece of a document.
        max_tokens: None for all.
    """
    index = PieceIndex(store.lengths, seq_length, store.num_special, "evaluation")
    rows, starts, stops = index.resolve(np.arange(len(index)))
    order = np.lexsort((starts, rows))
    lengths = index.lengths[order]
    count = len(order)
    if max_tokens is not None:
        count = max(1, int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), max_tokens, side="right")))
    return [column[:count] for column in (rows[order], starts[order], stops[order], lengths)]


@torch.no_grad()
def evaluate_masked(
    model: nn.Module,
    store: TokenisedDataset,
    tokenizer: PreTrainedTokenizerBase,
    mlm_probability: float = 0.15,
    seed: int = 0,
    batch_tokens: int = 8192,
    seq_length: int = 1024,
    max_tokens: int | None = None,
    position_edges: Sequence[int] | None = None,
    top_k: Sequence[int] = (1, 3, 5),
    rank: int = 0,
    world_size: int = 1,
    reduce: Callable[[list[float]], list[float]] | None = None,
) -> dict[str, float]:
    """Evaluate a masked-LM model on held-out documents.

    Args:
        model: any Hugging Face masked-LM model; left in the mode (train or eval) it came in.
        store: the documents.
        tokenizer: of the documents.
        mlm_probability: share of tokens that is masked.
        seed: of the masks.
        batch_tokens: most tokens of a batch, padding counted.
        seq_length: longest piece of a document.
        max_tokens: use the first documents up to this many tokens; None for all.
        position_edges: report accuracy by position too, between these edges, for instance (0, 1024, 8192).
        top_k: also report how often a label is among the k highest scores; 1 is `accuracy`.
        rank: this process evaluates every `world_size`-th batch.
        world_size: processes that share the work.
        reduce: sums a list over them.

    Returns:
        `loss` (nats a masked token), `accuracy`, `masked_tokens`, `accuracy@{k}` for each other k of `top_k`, and
        `accuracy_{low}_{high}` for each bucket seen.

    Raises:
        ValueError: if the store is empty, no token was masked, or `top_k` holds no rank.
    """
    if not len(store):
        raise ValueError("the held-out data is empty")
    if any(k < 1 for k in top_k):
        raise ValueError(f"top_k counts from 1; got {list(top_k)}")
    edges, depths = list(position_edges or []), sorted({int(k) for k in top_k} - {1})
    collator = MLMCollator(tokenizer, mlm_probability=mlm_probability, flat=accepts_flat(model), seed=seed)
    rows, starts, stops, lengths = held_out_pieces(store, seq_length, max_tokens)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums = np.zeros(3 + len(depths) + 2 * max(0, len(edges) - 1))
    try:
        for number, at in enumerate(length_batches(lengths, batch_tokens)):
            if number % world_size == rank:
                batch = collator(store.take(rows[at], starts[at], stops[at], step=number))
                moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                sums += _score(model, moved, edges, depths)
    finally:
        model.train(was_training)
    return _summary(reduce(sums.tolist()) if reduce is not None else sums.tolist(), edges, depths)


def _summary(totals: list[float], edges: list[int], depths: list[int]) -> dict[str, float]:
    loss, correct, count = totals[:3]
    if not count:
        raise ValueError("no token of the held-out data was masked: give it more text")
    out = {"loss": loss / count, "accuracy": correct / count, "masked_tokens": count}
    out |= {f"accuracy@{k}": right / count for k, right in zip(depths, totals[3:], strict=False)}
    buckets = totals[3 + len(depths) :]
    for i, (low, high) in enumerate(pairwise(edges)):
        right, seen = buckets[2 * i : 2 * i + 2]
        if seen:
            out[f"accuracy_{low}_{high}"] = right / seen
    return out


def _score(model: nn.Module, batch: dict[str, Any], edges: list[int], depths: list[int]) -> np.ndarray:
    """Loss sum, correct, count, correct within each depth, then (correct, count) of each position bucket."""
    masked = batch["labels"] != -100
    count = int(masked.sum())
    if not count:
        return np.zeros(3 + len(depths) + 2 * max(0, len(edges) - 1))
    loss, ranks = predict_masked(model, batch, masked)
    right = ranks == 0
    sums = [loss, float(right.sum()), float(count), *(float((ranks < k).sum()) for k in depths)]
    if edges:
        positions = batch.get("position_ids")
        if positions is None:
            positions = torch.arange(masked.shape[1], device=masked.device).expand_as(masked)
        positions = positions[masked]
        for low, high in pairwise(edges):
            inside = (positions >= low) & (positions < high)
            sums += [float((right & inside).sum()), float(inside.sum())]
    return np.array(sums)


def predict_masked(model: nn.Module, batch: dict[str, Any], masked: Tensor) -> tuple[float, Tensor]:
    """Predict the masked tokens of a batch.

    Args:
        model: a masked-LM model, in evaluation mode.
        batch: its inputs with `labels`, on its device.
        masked: bool, the labelled places.

    Returns:
        The summed loss in nats, and how many other entries do not score lower than each label `[M]` (0: it was
        guessed), as `metrics.label_ranks` counts them, in float32.
    """
    places = masked.nonzero(as_tuple=True)
    targets = batch["labels"][places]
    if "return_ranks" in inspect.signature(model.forward).parameters:
        output = model(**batch, return_ranks=True)
        return float(output.loss) * len(targets), output.label_ranks
    logits = _masked_logits(model, batch, places)
    own, last = logits.gather(1, targets[:, None]), logits.shape[1] - 1
    losses = cross_entropy(logits, targets, reduction="none")
    return float(losses.sum()), torch.where(losses.isfinite(), last - (logits < own).sum(1), last)


def _masked_logits(model: nn.Module, batch: dict[str, Any], places: tuple[Tensor, ...]) -> Tensor:
    """Logits `[M, V]` at the labelled places of a model without ranks of its own, in float32.

    In bfloat16 many scores are equal to the label's, which then counts as not guessed. So the last product is done
    again in float32, as RexBERT's ranks are, where the logits are what the output layer returned.
    """
    # Of labels a stock model makes a loss over all logits, thrown away here; ModernBERT may choose places by them.
    if isinstance(model, PreTrainedModel) and not getattr(model.config, "sparse_prediction", False):
        batch = {key: value for key, value in batch.items() if key != "labels"}
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    calls: list[tuple[Tensor, Tensor]] = []
    handle = None
    if isinstance(layer, nn.Linear):
        handle = layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    try:
        logits: Tensor = model(**batch).logits
    finally:
        if handle is not None:
            handle.remove()
    # `sparse_prediction` returns the labelled places only.
    at: Any = places if logits.ndim == 3 else (torch.arange(len(logits), device=logits.device),)
    few = tuple(index[:_COMPARED] for index in at)
    found = logits[few]
    if len(calls) == 1 and calls[0][1].dtype != torch.float32 and calls[0][1].shape == logits.shape:
        states, output = calls[0]
        if torch.equal(output[few].to(found.dtype), found):
            assert isinstance(layer, nn.Linear)
            bias = None if layer.bias is None else layer.bias.float()
            with torch.autocast(found.device.type, enabled=False):
                return linear(states[at].float(), layer.weight.float(), bias)
    exact = any(output.dtype == torch.float32 for _, output in calls)
    if not exact and any(torch.equal(found.to(half).to(found.dtype), found) for half in (torch.bfloat16, torch.half)):
        _warn_of_ties(type(model).__name__)
    return logits[at].float()


@functools.cache
def _warn_of_ties(name: str) -> None:
    logger.warning(
        "%s: its logits are in half precision and not what its output layer returned, so its held-out ranks count"
        " equal scores as misses: evaluate it in float32 for exact ones",
        name,
    )
