"""RexBERT models: ModernBERT-shaped encoders on flat batches; importing registers them with the Auto classes."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_rexbert import SIZES, RexBertConfig
from .losses_rexbert import masked_cross_entropy
from .modeling_rexbert import (
    RexBertForMaskedLM,
    RexBertForMultipleChoice,
    RexBertForPreTraining,
    RexBertForQuestionAnswering,
    RexBertForSequenceClassification,
    RexBertForTokenClassification,
    RexBertModel,
    RexBertPreTrainedModel,
)
from .modernbert import save_modernbert, to_modernbert
from .onednn import use_onednn
from .reconstruction_rexbert import neighbor_reconstruction_loss, reconstruction_distance

AutoConfig.register("rexbert", RexBertConfig, exist_ok=True)
for _auto, _model in (
    (AutoModel, RexBertModel),
    (AutoModelForMaskedLM, RexBertForMaskedLM),
    (AutoModelForPreTraining, RexBertForPreTraining),
    (AutoModelForSequenceClassification, RexBertForSequenceClassification),
    (AutoModelForTokenClassification, RexBertForTokenClassification),
    (AutoModelForQuestionAnswering, RexBertForQuestionAnswering),
    (AutoModelForMultipleChoice, RexBertForMultipleChoice),
):
    _auto.register(RexBertConfig, _model, exist_ok=True)

__all__ = [
    "SIZES",
    "RexBertConfig",
    "RexBertForMaskedLM",
    "RexBertForMultipleChoice",
    "RexBertForPreTraining",
    "RexBertForQuestionAnswering",
    "RexBertForSequenceClassification",
    "RexBertForTokenClassification",
    "RexBertModel",
    "RexBertPreTrainedModel",
    "masked_cross_entropy",
    "neighbor_reconstruction_loss",
    "reconstruction_distance",
    "save_modernbert",
    "to_modernbert",
    "use_onednn",
]
