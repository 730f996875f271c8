"""Reproduction of the papers' effects: rows with equal tokens and equal seeds, within a budget of minutes."""

from __future__ import annotations

from rexbert_hf.reproduction.jobs import Job, Ran, register_measure, register_run
from rexbert_hf.reproduction.probes import measure_aspects, measure_classes
from rexbert_hf.reproduction.runner import reproduce
from rexbert_hf.reproduction.settings import Claim, CurveSettings, Measure, ReproductionSettings, Stage

__all__ = [
    "Claim",
    "CurveSettings",
    "Job",
    "Measure",
    "Ran",
    "ReproductionSettings",
    "Stage",
    "measure_aspects",
    "measure_classes",
    "register_measure",
    "register_run",
    "reproduce",
]
