"""Collators that mask tokenised rows: plain, whole-word and guided masked language modelling."""

from __future__ import annotations

from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.guided import GuidedMLMCollator
from rexbert_hf.masking.mlm import MLMCollator

__all__ = ["GuidedMLMCollator", "MLMCollator", "MaskingCollator", "Selection"]
