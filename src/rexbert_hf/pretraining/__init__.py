"""A pre-training run from a recipe's settings to a finished, pushable folder."""

from __future__ import annotations

from rexbert_hf.pretraining.association_settings import AssociationSettings
from rexbert_hf.pretraining.run import make_arguments, pretrain, save_model
from rexbert_hf.pretraining.settings import (
    EvaluationSettings,
    GuideSettings,
    ModelSettings,
    PretrainSettings,
    SourceSettings,
    TokenizerSettings,
    TrainerSettings,
)

__all__ = [
    "AssociationSettings",
    "EvaluationSettings",
    "GuideSettings",
    "ModelSettings",
    "PretrainSettings",
    "SourceSettings",
    "TokenizerSettings",
    "TrainerSettings",
    "make_arguments",
    "pretrain",
    "save_model",
]
