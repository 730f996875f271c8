"""Masked accuracy inside guided spans and outside them, on held-out documents, with masks that never change.

Two questions: how well single masked tokens are guessed (15 % of all tokens, 80/10/10, what every masked LM trains),
and how well a span is guessed that is hidden whole (every token becomes the mask token, the rest of the text stays).
The second is harder: the other tokens of "$19.99" give the masked one away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import SPAN_KINDS, RowBatch
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import MaskingCollator, MLMCollator, Selection
from rexbert_hf.masking.mlm import draw_units
from rexbert_hf.masking.spans import whole_spans
from rexbert_hf.masking.units import number_units, word_starts
from rexbert_hf.metrics.masked_tokens import MaskedTokenCounts, token_kinds
from rexbert_hf.training.heldout import accepts_flat, length_batches, predict_masked


class WholeSpanCollator(MaskingCollator):
    """Mask each guided span as a whole, or not at all, and nothing else.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: probability of each span.
        **options: the options of `MaskingCollator`.
    """

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose whole spans; overlaps and cut words are resolved as guided masking does."""
        starts = word_starts(batch, eligible)
        spans, _ = whole_spans(batch, starts, eligible)
        lengths = spans.end - spans.start
        starts[ranges(spans.start + 1, lengths - 1)] = False
        units = number_units(starts)
        probability = np.zeros(int(units[-1]) + 1)
        probability[units[spans.start]] = self.mlm_probability
        return draw_units(units, probability, eligible, rng)


@torch.no_grad()
def evaluate_spans(
    model: nn.Module,
    store: TokenisedDataset,
    tokenizer: PreTrainedTokenizerBase,
    mask: str = "tokens",
    mlm_probability: float = 0.15,
    seed: int = 0,
    batch_tokens: int = 8192,
    seq_length: int = 1024,
    max_tokens: int | None = None,
    only_with_spans: bool = False,
) -> dict[str, float]:
    """Evaluate a masked-LM model inside guided spans and outside them.

    Documents are drawn in a fixed random order, so that `max_tokens` takes from all parts of the store alike; of a
    document longer than `seq_length` the first piece counts.

    Args:
        model: any Hugging Face masked-LM model; left in the mode (train or eval) it came in.
        store: the documents, with spans.
        tokenizer: of the documents.
        mask: "tokens" masks tokens at random (80/10/10), "spans" masks whole spans and nothing else (always with the
            mask token).
        mlm_probability: share of the tokens, or probability of a span.
        seed: of the documents drawn and of the masks.
        batch_tokens: most tokens of a batch, padding counted.
        seq_length: longest piece of a document.
        max_tokens: tokens to use; None for all.
        only_with_spans: use only documents with a span.

    Returns:
        `MaskedTokenCounts.report()`: `accuracy`, `accuracy_guided`, `accuracy_rest`, by kind, `accuracy@5...`, counts;
        and `loss`, the mean over all masked tokens in nats.

    Raises:
        ValueError: if `mask` is unknown, the store has no spans or holds no document to use, or nothing was masked.
    """
    if mask not in ("tokens", "spans"):
        raise ValueError(f"mask must be 'tokens' or 'spans', got '{mask}'")
    if not store.has_spans:
        raise ValueError("the held-out data has no spans: tokenise it with guides (guides.always: true)")
    rows, lengths = _choose(store, seed, seq_length, max_tokens, only_with_spans)
    flat = accepts_flat(model)
    collator: MaskingCollator
    if mask == "spans":
        collator = WholeSpanCollator(
            tokenizer, mlm_probability, flat=flat, seed=seed, mask_replace_prob=1.0, random_replace_prob=0.0
        )
    else:
        collator = MLMCollator(tokenizer, mlm_probability, flat=flat, seed=seed)
    counts = MaskedTokenCounts(top_k=(1, 5), position_edges=(), kinds=SPAN_KINDS)
    was_training = model.training
    loss = 0.0
    model.eval()
    try:
        for step, at in enumerate(length_batches(lengths, batch_tokens)):
            start = np.zeros(len(at), dtype=np.int64)
            batch = store.take(rows[at], start, start + seq_length - store.num_special, step=step)
            loss += _count(model, batch, collator(batch), counts)
    finally:
        model.train(was_training)
    report = counts.report()
    if not report.get("count"):
        raise ValueError("no token of the held-out data was masked: give it more text")
    return report | {"loss": loss / report["count"]}


def _choose(
    store: TokenisedDataset, seed: int, seq_length: int, max_tokens: int | None, only_with_spans: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to use and their lengths, cut to `seq_length`."""
    rows = np.random.default_rng(seed).permutation(len(store))
    if only_with_spans and len(rows):
        batch = store.take(np.arange(len(store)))
        assert batch.span_start is not None
        owners = np.searchsorted(batch.offsets, batch.span_start, side="right") - 1
        early = batch.span_start - batch.offsets[owners] < seq_length - store.num_suffix
        rows = rows[np.isin(rows, owners[early])]
    if not len(rows):
        raise ValueError("the held-out data is empty" + (" of documents with spans" if only_with_spans else ""))
    lengths = np.minimum(store.lengths[rows], seq_length).astype(np.int64)
    if max_tokens is not None:
        count = max(1, int(np.searchsorted(np.cumsum(lengths), max_tokens, side="right")))
        rows, lengths = rows[:count], lengths[:count]
    return rows, lengths


def _count(model: nn.Module, rows: RowBatch, batch: dict[str, Any], counts: MaskedTokenCounts) -> float:
    """Add one batch; returns its summed loss."""
    device = next(model.parameters()).device
    labels = batch["labels"]
    # Row by row, the tokens of a padded batch stand in the order of the flat one.
    real = labels[batch["attention_mask"].bool()] if "attention_mask" in batch else labels[0]
    places = np.flatnonzero(real.numpy() != -100)
    if not len(places):
        return 0.0
    assert rows.span_start is not None
    assert rows.span_end is not None
    assert rows.span_kind is not None
    kinds = token_kinds(len(rows.input_ids), rows.span_start, rows.span_end, rows.span_kind)
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    loss, ranks = predict_masked(model, moved, moved["labels"] != -100)
    counts.update(ranks.cpu().numpy(), kinds=kinds[places])
    return loss
