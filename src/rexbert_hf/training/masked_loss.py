"""The masked-LM loss of models of other architectures, from their logits.

Many of them (BERT, RoBERTa, DistilBERT, ...) take `num_items_in_batch` without a word and return a mean over the
micro-batch, so what they return cannot be summed over a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rexbert_hf.training.heldout import accepts_flat


def masked_lm_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross entropy summed over the labelled tokens and divided by their count over the step.

    Args:
        outputs: of a masked-LM model, `logits` `[B, S, V]`.
        labels: `[B, S]`, -100 where nothing is predicted.
        num_items_in_batch: labelled tokens of the whole step; None for those of these labels.
    """
    picked = labels != -100
    total = cross_entropy(outputs.logits[picked].float(), labels[picked], reduction="sum")
    return total / (picked.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


def with_label_count(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch, and the number of its labels for a model that would wait for its device to learn it.

    Args:
        model: without a wrapper.
        batch: on the host, as the collator made it; of one masking.
    """
    out, labels = dict(batch), batch.get("labels")
    waits = _waits(model) and "num_targets" in inspect.signature(model.forward).parameters
    if waits and isinstance(labels, torch.Tensor) and labels.device.type == "cpu" and "phrase_labels" not in batch:
        out["num_targets"] = int((labels != -100).sum())
    return out


def _waits(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cuda"


def forward_with_loss(
    model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
) -> tuple[Any, torch.Tensor]:
    """Outputs and loss of any masked-LM model, its labelled tokens weighed by those of the whole step.

    Args:
        model: RexBERT or another.
        inputs: with `labels`.
        num_items_in_batch: labelled tokens of the whole step.
    """
    if accepts_flat(model):
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        return outputs, outputs.loss
    outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
    return outputs, masked_lm_loss(outputs, inputs["labels"], num_items_in_batch)
