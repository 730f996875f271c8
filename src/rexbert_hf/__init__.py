"""Domain encoders for product search, in Hugging Face idioms.

Importing the package registers the RexBERT classes with transformers' Auto classes. Everything else is loaded when it
is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .models import (
    RexBertConfig,
    RexBertForMaskedLM,
    RexBertForMultipleChoice,
    RexBertForPreTraining,
    RexBertForQuestionAnswering,
    RexBertForSequenceClassification,
    RexBertForTokenClassification,
    RexBertModel,
)

__version__ = "0.1.0"

_LAZY = {
    "MLMCollator": "masking",
    "GuidedMLMCollator": "masking",
    "AdaptiveHybridMaskingCollator": "masking",
    "NounPhraseCollator": "masking",
    "QueryProductCollator": "masking",
    "SpanMaskingCollator": "masking",
    "load_corpus": "corpus",
    "load_sample": "catalog",
    "read_records": "catalog",
    "OnnxEncoder": "retrieval",
    "PhrasePool": "phrases",
    "ProductIndex": "retrieval",
    "AdaptiveMaskingMixin": "training",
    "AssociationGraph": "objectives",
    "Curriculum": "training",
    "CurriculumArguments": "training",
    "CurriculumTrainer": "training",
    "Phase": "training",
    "TokenisedDataset": "data",
    "tokenise": "data",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "RexBertConfig",
    "RexBertForMaskedLM",
    "RexBertForMultipleChoice",
    "RexBertForPreTraining",
    "RexBertForQuestionAnswering",
    "RexBertForSequenceClassification",
    "RexBertForTokenClassification",
    "RexBertModel",
    "__version__",
    *_LAZY,
]
