"""Lossless exchange with stock ModernBERT checkpoints.

Loading needs no code: `RexBertFor*.from_pretrained` reads a ModernBERT checkpoint as it is. Saving writes the same
tensors under the same names with a stock configuration, so transformers, TEI, vLLM and ONNX tools open the result.

Travels to the Hub as remote code: imports torch and transformers only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
_FACTS, _POOLING = "config_sentence_transformers.json", "1_Pooling/config.json"
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
    save_sentence_form(save_directory, model.config.hidden_size, getattr(model.config, "truncate_dim", None))


def save_sentence_form(folder: str | Path, hidden_size: int, truncate_dim: int | None) -> None:
    """Let sentence-transformers open an encoder's folder with its `truncate_dim`, pooling by the mean.

    Of a whole encoder nothing has to be said, and what this function wrote for another one that lay there goes. A
    folder that sentence-transformers (it says its version) or somebody else described is left as it is: it says more.

    Args:
        folder: of the encoder.
        hidden_size: its width.
        truncate_dim: dimensions of a vector; None for all.
    """
    place = Path(folder)
    there = {name: _read(place / name) for name in _sentence_files(0, 0) if (place / name).exists()}
    facts, pooling = (content if isinstance(content := there.get(name), dict) else {} for name in (_FACTS, _POOLING))
    own = _sentence_files(pooling.get("word_embedding_dimension"), facts.get("truncate_dim"))
    if any(content != own[name] for name, content in there.items()):
        if "__version__" not in facts and facts.get("truncate_dim") != truncate_dim:
            logger.warning(
                f"{place} has truncate_dim={facts.get('truncate_dim')} for sentence-transformers, the model saved there"
                f" {truncate_dim}: files written by somebody else stay; correct {_FACTS}, or save to an empty folder"
            )
        return
    if truncate_dim is not None:
        for name, content in _sentence_files(hidden_size, truncate_dim).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    elif _FACTS in there:
        for name in reversed(own):
            (place / name).unlink(missing_ok=True)
        folder_of_pooling = (place / _POOLING).parent
        if folder_of_pooling.is_dir() and not any(folder_of_pooling.iterdir()):
            folder_of_pooling.rmdir()


def _sentence_files(hidden_size: Any, truncate_dim: Any) -> dict[str, Any]:
    """What such a folder holds; what says the dimensions comes last."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_mean_tokens": True}
    facts = {"truncate_dim": truncate_dim, "similarity_fn_name": "cosine"}
    return {"modules.json": modules, _POOLING: pooling, _FACTS: facts}


def _read(path: Path) -> Any:
    """What a JSON file holds; None if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


__all__ = ["modernbert_config", "save_modernbert", "save_sentence_form", "to_modernbert"]
