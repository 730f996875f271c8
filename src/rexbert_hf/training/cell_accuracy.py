"""Masked accuracy of each cell of a grid on held-out documents, from one encoder pass.

The masks are those of `heldout.evaluate_masked`, so the figure of the largest cell is that function's. Cells need not
be trained ones: a plainly trained model is measured as it would be cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import MLMCollator
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.models.matryoshka_rexbert import LabelledStates
from rexbert_hf.models.products_rexbert import is_plain, project_cut
from rexbert_hf.training.heldout import held_out_pieces, length_batches

LOGITS = 1 << 24
"""Elements of logits held at once."""

Cell = tuple[int, int]


@torch.no_grad()
def evaluate_cells(
    model: RexBertForMaskedLM,
    store: TokenisedDataset | Sequence[TokenisedDataset],
    tokenizer: PreTrainedTokenizerBase,
    cells: Sequence[Cell],
    mlm_probability: float = 0.15,
    seed: int = 0,
    batch_tokens: int = 8192,
    seq_length: int = 1024,
    max_tokens: int | None = None,
) -> dict[Cell, float]:
    """Share of masked tokens that each cell guesses.

    Args:
        model: a RexBERT masked-LM model; left in the mode (train or eval) it came in.
        store: the documents; of several stores all masked tokens count together.
        tokenizer: of the documents.
        cells: (layers, dimensions).
        mlm_probability: share of tokens that is masked.
        seed: of the masks.
        batch_tokens: most tokens of a batch.
        seq_length: longest piece of a document.
        max_tokens: use the first documents of a store up to this many tokens; None for all.

    Raises:
        ValueError: if the model lacks a cell, a store is empty, or no token was masked.
    """
    config = model.config
    for layers, dim in cells:
        if not (1 <= layers <= config.num_hidden_layers and 1 <= dim <= config.hidden_size):
            raise ValueError(
                f"cell of {layers} layers x {dim} dimensions: the model has {config.num_hidden_layers} layers and"
                f" {config.hidden_size} dimensions"
            )
    stores = [store] if isinstance(store, TokenisedDataset) else list(store)
    if not all(len(part) for part in stores):
        raise ValueError("the held-out data is empty")
    collator = MLMCollator(tokenizer, mlm_probability=mlm_probability, flat=True, seed=seed)
    training, device = model.training, next(model.parameters()).device
    right, count = dict.fromkeys(cells, 0), 0
    model.eval()
    try:
        for part in stores:
            rows, starts, stops, lengths = held_out_pieces(part, seq_length, max_tokens)
            for number, at in enumerate(length_batches(lengths, batch_tokens)):
                batch = collator(part.take(rows[at], starts[at], stops[at], step=number))
                moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                count += _add(model, moved, right)
    finally:
        model.train(training)
    if not count:
        raise ValueError("no token of the held-out data was masked: give it more text")
    return {cell: hits / count for cell, hits in right.items()}


def _add(model: RexBertForMaskedLM, batch: dict[str, Any], right: dict[Cell, int]) -> int:
    """Count the hits of a batch by cell; returns its masked tokens."""
    labels = batch.pop("labels").reshape(-1)
    places, encoder = (labels != -100).nonzero().squeeze(1), model.model
    targets, gathered = labels[places], LabelledStates({layers for layers, _ in right}, places)
    encoder(**batch, on_layer=gathered)
    for layers, rows in gathered.states.items():
        states = encoder.normed(rows, layers)
        for cell in [cell for cell in right if cell[0] == layers]:
            right[cell] += _hits(model, states, targets, cell[1])
    return len(targets)


def _hits(model: RexBertForMaskedLM, states: Tensor, targets: Tensor, dim: int) -> int:
    decoder = model.decoder
    hidden, step, hits = model.head(states, dim), max(1, LOGITS // model.config.vocab_size), 0
    for start in range(0, len(targets), step):
        part = hidden[start : start + step]
        if is_plain(decoder):
            logits = F.linear(part, decoder.weight[:, :dim], decoder.bias)
        else:
            logits = project_cut(decoder, part, model.config.hidden_size)
        guesses = logits.argmax(dim=1)
        hits += int((guesses == targets[start : start + step]).sum())
    return hits
