"""Query-product interaction pre-finetuning: stage 2 of "Web-scale Semantic Product Search" (section 2.2).

A run is a pre-training run whose source is pairs (`masking.kind: query_product`), so everything that holds there holds
here: flat batches, exact resume, one folder at the end. What is added is the stop on held-out pairs of other queries.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rexbert_hf.models import RexBertConfig, RexBertForSequenceClassification
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.pretraining.encoder import load_model
from rexbert_hf.retrieval.training.qpi_settings import KINDS, QPISettings
from rexbert_hf.retrieval.training.qpi_trainer import PairTrainer, RelevanceTrainer


def run_qpi(settings: QPISettings) -> dict[str, Any]:
    """Run query-product pre-finetuning to its end, or on from where it stopped.

    Args:
        settings: the recipe.

    Returns:
        The `results` of `run.json`: those of a pre-training run; `held_out` (loss, accuracy and count of the weights
        that were saved) and `early_stopping`.

    Raises:
        ValueError: as `pretrain`.
        FileNotFoundError: as `pretrain`.
        OSError: as `pretrain`.
    """
    trainer_class = PairTrainer if settings.objective == "span" else RelevanceTrainer

    def make_trainer(*args: Any, **kwargs: Any) -> PairTrainer:
        # The rule decides which weights are saved: a folder of another rule is another run.
        rule = {f"early_stopping.{name}": value for name, value in vars(settings.early_stopping).items()}
        kwargs["description"] = {**kwargs["description"], **rule, "objective": settings.objective}
        trainer = trainer_class(*args, **kwargs)
        trainer.stopping = settings.early_stopping
        return trainer

    make_model = make_pair_model if settings.objective == "span" else make_classifier
    return pretrain(settings, make_model, make_trainer)


def make_pair_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The masked-LM model of a run; one that knows segments (BERT) gets the sides as segments.

    Args:
        settings: the recipe; its phases are told about segments.
        tokenizer: of the run.
    """
    model = load_model(settings, tokenizer)
    if (getattr(model.config, "type_vocab_size", 0) or 0) > 1:
        for phase in settings.phases:
            if phase.masking.kind in KINDS.values():
                phase.masking.options.setdefault("token_type_ids", True)
    return model


def make_classifier(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A classifier of pairs (relevant or not) with all weights that it shares with the run's masked-LM model.

    Args:
        settings: the recipe.
        tokenizer: of the run.
    """
    masked = make_pair_model(settings, tokenizer)
    config = copy.deepcopy(masked.config)
    config.num_labels, config.problem_type = 2, "single_label_classification"
    config.id2label, config.label2id = {0: "irrelevant", 1: "relevant"}, {"irrelevant": 0, "relevant": 1}
    if isinstance(config, RexBertConfig):
        model: PreTrainedModel = RexBertForSequenceClassification(config)
    else:
        model = AutoModelForSequenceClassification.from_config(config)
    own = model.state_dict()
    shared = {k: v for k, v in masked.state_dict().items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(shared, strict=False)
    model._keys_to_ignore_on_save = None
    return model
