"""The masked-LM loss over a grid of layers x dimensions (m3BERT), by the names that other rooms use.

`AutoModelForMaskedLM` needs it from the Hub, so it lives in `models/matryoshka_rexbert.py`. A model trains its grid
when its configuration names one (`matryoshka_layers`, `matryoshka_dims` or `matryoshka_cells`); in a recipe that is one
line, `model.matryoshka: {layers: [3, 5, 7], dims: [32, 64, 128, 256]}`, with any masking and beside other objectives.
"""

from __future__ import annotations

from rexbert_hf.models.matryoshka_rexbert import Grid, grid_cross_entropy

__all__ = ["Grid", "grid_cross_entropy"]
