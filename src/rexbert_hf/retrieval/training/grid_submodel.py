"""A cell of a bi-encoder as a bi-encoder of its own: fewer layers, fewer dimensions, nothing else."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn

from rexbert_hf.models import RexBertModel
from rexbert_hf.models.configuration_rexbert import word_on_cell
from rexbert_hf.retrieval.training.grid_encoder import parts_of, shape_of
from rexbert_hf.retrieval.training.grid_settings import is_stale, make_grid, trained_cells

logger = logging.getLogger(__name__)


def cut_biencoder(
    model: SentenceTransformer, num_hidden_layers: int | None = None, truncate_dim: int | None = None
) -> SentenceTransformer:
    """A copy that keeps the first layers, and whose vectors are the first dimensions (`truncate_dim`).

    It saves, pushes, loads and exports as any other. The configuration of a RexBERT says the same, so that
    transformers' Auto classes see the cut too. Vectors are cut after normalisation, as sentence-transformers does it:
    compare them by cosine, or encode with `normalize_embeddings=True`.

    Args:
        model: the bi-encoder.
        num_hidden_layers: layers to keep; None keeps all.
        truncate_dim: dimensions to keep; None keeps all.

    Raises:
        ValueError: if there are fewer layers or dimensions than asked for.

    Example:
        >>> from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> cut_biencoder(model, 1, 16).encode_query(["red mug"]).shape
        (1, 16)
    """
    depth, width = shape_of(model)
    layers = depth if num_hidden_layers is None else num_hidden_layers
    dim = (model.truncate_dim or width) if truncate_dim is None else truncate_dim
    make_grid([(layers, dim)], None, (depth, width))
    cut = copy.deepcopy(model)
    cut.truncate_dim = dim if dim < width else None
    transformers: list[Any] = [parts_of(cut, task)[0] for task in ("query", "document")]
    if not all(isinstance(transformer.model, RexBertModel) for transformer in transformers):
        keep_layers(cut, range(layers))
        if (layers, dim) != (depth, width):
            _leave_grid(cut, word_on_cell((layers, dim), trained_cells(model), is_stale(model)))
        return cut
    for transformer in {id(transformer): transformer for transformer in transformers}.values():
        transformer.model = transformer.model.submodel(layers, cut.truncate_dim)
    return cut


def _leave_grid(cut: SentenceTransformer, word: str | None) -> None:
    """No grid any more, and a word where this cell was not trained; RexBERT's sub-models do both by themselves."""
    if word is not None:
        logger.warning(word)
    for task in ("query", "document"):
        config: Any = parts_of(cut, task)[0].model.config
        config.matryoshka_cells, config.matryoshka_stale = None, False


def keep_layers(model: SentenceTransformer, layers: Sequence[int]) -> None:
    """Cut a bi-encoder to some layers of each of its encoders, in place.

    Args:
        model: the bi-encoder.
        layers: numbers, from 0.

    Raises:
        ValueError: if a number is out of range, or the architecture keeps its layers where nobody knows.
    """
    for module in model.modules():
        if not isinstance(module, Transformer):
            continue
        encoder = module.auto_model
        flat = hasattr(encoder, "layers")
        holder, name = (encoder, "layers") if flat else (getattr(encoder, "encoder", None), "layer")
        if holder is None or not hasattr(holder, name):
            raise ValueError(f"{type(encoder).__name__}: its layers cannot be cut; give student.base instead")
        old = getattr(holder, name)
        if not layers or min(layers) < 0 or max(layers) >= len(old):
            raise ValueError(f"layers {list(layers)}: the encoder has the layers 0 to {len(old) - 1}")
        if layers[0] != 0 and isinstance(getattr(old[0], "attn_norm", None), nn.Identity):
            raise ValueError(f"layers {list(layers)}: the first layer of this architecture has no norm; begin with 0")
        setattr(holder, name, nn.ModuleList(old[i] for i in layers))
        encoder.config.num_hidden_layers = len(layers)
        if getattr(encoder.config, "layer_types", None):
            encoder.config.layer_types = [encoder.config.layer_types[i] for i in layers]
        if isinstance(encoder, RexBertModel):
            _as_a_sub_model(encoder, has_last=layers[-1] == len(old) - 1)


def _as_a_sub_model(encoder: RexBertModel, has_last: bool) -> None:
    """What `submodel` does beside the layers: no grid that is not there, no norm of another depth."""
    config = encoder.config
    if not has_last:
        config.leave_layers()
        encoder.final_norm = encoder.final_norm if config.apply_final_norm else nn.Identity()
    if any(depth > config.num_hidden_layers for depth, _ in config.matryoshka_grid()):
        config.leave_matryoshka()
