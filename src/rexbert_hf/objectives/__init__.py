"""Losses over encoder outputs. What the models need lives in `models/losses_rexbert.py` and is named here."""

from __future__ import annotations

from rexbert_hf.models.losses_rexbert import neighbor_reconstruction_loss, reconstruction_distance

__all__ = ["neighbor_reconstruction_loss", "reconstruction_distance"]
