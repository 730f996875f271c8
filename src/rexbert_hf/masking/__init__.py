"""Collators that mask tokenised rows: plain, guided, by phrases, random spans, one side of a pair, adaptively."""

from __future__ import annotations

from rexbert_hf.masking.adaptive import AdaptiveHybridMaskingCollator
from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.guided import GuidedMLMCollator
from rexbert_hf.masking.mlm import MLMCollator
from rexbert_hf.masking.noun_phrase import NounPhraseCollator
from rexbert_hf.masking.phrase_mode import PhraseMaskingCollator
from rexbert_hf.masking.query_product import QueryProductCollator, QueryProductRelevanceCollator
from rexbert_hf.masking.random_spans import SpanMaskingCollator
from rexbert_hf.masking.switch import AdaptiveSwitch

__all__ = [
    "AdaptiveHybridMaskingCollator",
    "AdaptiveSwitch",
    "GuidedMLMCollator",
    "MLMCollator",
    "MaskingCollator",
    "NounPhraseCollator",
    "PhraseMaskingCollator",
    "QueryProductCollator",
    "QueryProductRelevanceCollator",
    "Selection",
    "SpanMaskingCollator",
]
