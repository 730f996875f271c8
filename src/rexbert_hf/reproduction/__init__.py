"""Reproduction of the papers' effects: rows with equal tokens and equal seeds, within a budget of minutes."""

from __future__ import annotations

from rexbert_hf.reproduction.downstream import Kind, register_kind
from rexbert_hf.reproduction.jobs import Job, Ran, register_measure, register_run
from rexbert_hf.reproduction.probes import measure_aspects, measure_classes
from rexbert_hf.reproduction.runner import reproduce
from rexbert_hf.reproduction.settings import Claim, CurveSettings, ReproductionSettings
from rexbert_hf.reproduction.stages import Branch, Measure, Recipe, Stage

__all__ = [
    "Branch",
    "Claim",
    "CurveSettings",
    "Job",
    "Kind",
    "Measure",
    "Ran",
    "Recipe",
    "ReproductionSettings",
    "Stage",
    "measure_aspects",
    "measure_classes",
    "register_kind",
    "register_measure",
    "register_run",
    "reproduce",
]
