"""Lossless exchange with stock ModernBERT checkpoints.

Loading needs no code: `RexBertFor*.from_pretrained` reads a ModernBERT checkpoint as it is. Saving writes the same
tensors under the same names with a stock configuration, so transformers, TEI, vLLM and ONNX tools open the result.

Travels to the Hub as remote code: imports torch and transformers only.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import ModernBertConfig, PreTrainedModel

STOCK_CLASS = {
    "RexBertModel": "ModernBertModel",
    "RexBertForMaskedLM": "ModernBertForMaskedLM",
    "RexBertForPreTraining": "ModernBertForMaskedLM",
    "RexBertForSequenceClassification": "ModernBertForSequenceClassification",
    "RexBertForTokenClassification": "ModernBertForTokenClassification",
    "RexBertForQuestionAnswering": "ModernBertForQuestionAnswering",
    "RexBertForMultipleChoice": "ModernBertForMultipleChoice",
}
_OWN_FIELDS = (
    "auto_map",
    "attention_output_dropout",
    "truncate_dim",
    "matryoshka_layers",
    "matryoshka_dims",
    "matryoshka_cells",
    "matryoshka_weights",
    "matryoshka_sample",
    "matryoshka_kl_weight",
    "norm_intermediate",
    "npr_weight",
    "npr_margin",
    "npr_normalize",
    "architectures",
    "model_type",
)


def modernbert_config(config: ModernBertConfig) -> ModernBertConfig:
    """The stock configuration of the same network."""
    fields = {name: value for name, value in config.to_dict().items() if name not in _OWN_FIELDS}
    return ModernBertConfig.from_dict(fields)


def to_modernbert(model: PreTrainedModel) -> PreTrainedModel:
    """The stock ModernBERT model that shares `model`'s tensors.

    A `truncate_dim` is not part of it: the stock model computes all dimensions, cut its pooled output.

    Raises:
        ValueError: if the class has no ModernBERT form.
    """
    name = STOCK_CLASS.get(type(model).__name__)
    if name is None:
        raise ValueError(f"{type(model).__name__} has no ModernBERT form; these have: {', '.join(STOCK_CLASS)}")
    assert isinstance(model.config, ModernBertConfig)
    config = modernbert_config(model.config)
    with torch.device("meta"):
        stock: PreTrainedModel = getattr(transformers, name)(config)
    state = model.state_dict()
    stock.load_state_dict({key: state[key] for key in stock.state_dict()}, assign=True)
    stock.tie_weights()
    # The rotary tables are in no checkpoint: built on meta they would have no values.
    stock.base_model.rotary_emb = type(stock.base_model.rotary_emb)(config, device=model.device)
    return stock.eval()


def save_modernbert(model: PreTrainedModel, save_directory: str | Path) -> None:
    """Write `model` as a stock ModernBERT checkpoint (see `to_modernbert`)."""
    to_modernbert(model).save_pretrained(save_directory)


__all__ = ["modernbert_config", "save_modernbert", "to_modernbert"]
