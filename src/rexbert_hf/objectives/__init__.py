"""Losses over encoder outputs and what feeds them. What the models need lives in `models`, and is only named here."""

from __future__ import annotations

from rexbert_hf.models.reconstruction_rexbert import neighbor_reconstruction_loss, reconstruction_distance
from rexbert_hf.objectives.association_graph import AssociationGraph
from rexbert_hf.objectives.hinge import three_part_hinge
from rexbert_hf.objectives.matryoshka import Grid, grid_cross_entropy, grid_loss
from rexbert_hf.objectives.pair_counts import AssociationReport
from rexbert_hf.objectives.triplets import ContentGraph, TripletRows, TripletSampler

__all__ = [
    "AssociationGraph",
    "AssociationReport",
    "ContentGraph",
    "Grid",
    "TripletRows",
    "TripletSampler",
    "grid_cross_entropy",
    "grid_loss",
    "neighbor_reconstruction_loss",
    "reconstruction_distance",
    "three_part_hinge",
]
