"""Lossless exchange with stock ModernBERT checkpoints.

Loading needs no code: `RexBertFor*.from_pretrained` reads a ModernBERT checkpoint as it is. Saving writes the same
tensors under the same names with a stock configuration, so transformers, TEI, vLLM and ONNX tools open the result.

Travels to the Hub as remote code: imports torch and transformers only.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from transformers import ModernBertConfig, PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)

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
    "matryoshka_stale",
    "norm_intermediate",
    "apply_final_norm",
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

    A `truncate_dim` is not part of it: the stock encoder computes all dimensions, of which its pooled output is cut. A
    stock head would read all of them too, so a cut model with a head is told.

    Raises:
        ValueError: if the class has no ModernBERT form, or the model was cut without its final norm.
    """
    name = STOCK_CLASS.get(type(model).__name__)
    if name is None:
        raise ValueError(f"{type(model).__name__} has no ModernBERT form; these have: {', '.join(STOCK_CLASS)}")
    assert isinstance(model.config, ModernBertConfig)
    if not getattr(model.config, "apply_final_norm", True):
        raise ValueError(
            "a model that was trained with norm_intermediate=false and cut has no final norm, and ModernBERT always has"
            " one: save and serve it as a RexBERT"
        )
    dim = getattr(model.config, "truncate_dim", None)
    if dim is not None and model is not model.base_model:
        logger.warning_once(
            f"{name} reads all {model.config.hidden_size} dimensions, not the first {dim}: its encoder is the same, "
            "what its head says is not"
        )
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
    """Write `model` as a stock ModernBERT checkpoint (see `to_modernbert`).

    Of a cut model sentence-transformers reads the dimensions too: truncation comes after pooling.
    """
    to_modernbert(model).save_pretrained(save_directory)
    dim = getattr(model.config, "truncate_dim", None)
    if dim is not None:
        save_sentence_form(save_directory, model.config.hidden_size, dim)


def save_sentence_form(folder: str | Path, hidden_size: int, truncate_dim: int) -> None:
    """Let sentence-transformers open an encoder's folder with its `truncate_dim`, pooling by the mean.

    A folder that sentence-transformers itself writes (with its version) is left as it is: it says more.

    Args:
        folder: of the encoder.
        hidden_size: its width.
        truncate_dim: dimensions of a vector.
    """
    place, facts = Path(folder), Path(folder) / "config_sentence_transformers.json"
    if facts.exists() and "__version__" in json.loads(facts.read_text(encoding="utf-8")):
        return
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_mean_tokens": True}
    files = {"modules.json": modules, "1_Pooling/config.json": pooling}
    files["config_sentence_transformers.json"] = {"truncate_dim": truncate_dim, "similarity_fn_name": "cosine"}
    (place / "1_Pooling").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


__all__ = ["modernbert_config", "save_modernbert", "save_sentence_form", "to_modernbert"]
