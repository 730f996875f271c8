"""The masked-LM loss over a grid of layers x dimensions (m3BERT), for those who look for it among the objectives.

Its code is in `models/matryoshka_rexbert.py`: a model computes this loss in its own forward pass and takes that file
along to the Hub, where remote code may import its siblings only.
"""

from __future__ import annotations

from rexbert_hf.models.matryoshka_rexbert import Grid, LabelledStates, check_whole, grid_cross_entropy, grid_loss

__all__ = ["Grid", "LabelledStates", "check_whole", "grid_cross_entropy", "grid_loss"]
