"""A cell of a bi-encoder as a bi-encoder of its own: fewer layers, fewer dimensions, nothing else."""

from __future__ import annotations

import copy
import logging
from typing import Any

from sentence_transformers import SentenceTransformer

from rexbert_hf.models import RexBertModel
from rexbert_hf.models.configuration_rexbert import word_on_cell
from rexbert_hf.retrieval.training.biencoder import keep_layers
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
