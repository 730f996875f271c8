"""Losses of bi-encoders over a grid of layers x dimensions: all cells from one forward pass, or its gradient cache.

The loss of a cell is that of the model which was cut there: the same in-batch softmax with the same false negatives
left out, or the same three-part hinge. Cells are summed with weight 1 each, as m3BERT's pre-training sums them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import Matryoshka2dLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.retrieval.training.embedding_blocks import Features
from rexbert_hf.retrieval.training.grid_encoder import GridEncoder
from rexbert_hf.retrieval.training.losses import MaskedRankingLoss, ThreePartHingeLoss, embedded_loss


class GridLoss(nn.Module):
    """A loss of this package, summed over the cells of a grid.

    Args:
        model: the bi-encoder.
        loss: of one cell; its `block_size` and `cached` hold for all of them.
        grid: the cells and their weights.
        sample: cells of a step, the largest one always among them; 0: all.

    Example:
        >>> from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> features = [model.preprocess(texts) for texts in (["mug", "plate"], ["red mug", "blue plate"])]
        >>> grid = Grid(((1, 32), (2, 64)), (1.0, 1.0))
        >>> GridLoss(model, MaskedRankingLoss(model), grid)(features, torch.tensor([[0, 0], [1, 1]])).ndim
        0
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: MaskedRankingLoss | ThreePartHingeLoss,
        grid: Grid,
        sample: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.grid, self.sample = model, loss, grid, sample

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        """The weighted sum of the cells' losses.

        Args:
            sentence_features: of each column, as the loss of a cell takes them.
            labels: likewise.
        """
        columns = list(sentence_features)
        grid = self.grid.sample(self.sample)
        layers = sorted(grid.layers)
        loss_of = self.loss.objective(columns, labels)

        def total(vectors: list[Tensor]) -> Tensor:
            cells = zip(grid.cells, grid.weights, strict=True)
            parts = [w * loss_of([v[:, layers.index(depth), :dim] for v in vectors]) for (depth, dim), w in cells]
            return torch.stack(parts).sum()

        encoder = GridEncoder(self.model, layers)
        return embedded_loss(encoder, columns, self.loss.block_size, self.loss.cached, total)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card shows."""
        cells = [list(cell) for cell in self.grid.cells]
        return {"loss": type(self.loss).__name__, "cells": cells, "sample": self.sample, **self.loss.get_config_dict()}


def stock_grid_loss(model: SentenceTransformer, grid: Grid, scale: float) -> Matryoshka2dLoss:
    """Sentence-transformers' own way (2DMSE), to compare with: one random layer and one random dimension a step.

    Its in-batch softmax knows no false negatives; its layers are all layers (the embeddings among them), not those of
    the grid, and their states are pooled without the final norm that a cut ModernBERT has.

    Args:
        model: the bi-encoder.
        grid: gives the dimensions.
        scale: of the cosines.
    """
    dims = sorted({dim for _, dim in grid.cells}, reverse=True)
    return Matryoshka2dLoss(model, MultipleNegativesRankingLoss(model, scale=scale), dims)
