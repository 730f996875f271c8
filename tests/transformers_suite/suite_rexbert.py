"""transformers' own `ModelTesterMixin` over RexBERT and, as the control, over stock ModernBERT.

Opt-in: the name keeps it out of the normal run; `python tests/transformers_suite/run.py` fetches the mixins, runs this
file and compares. Both families get the same tester, so a difference is a difference of the models.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import transformers
from transformers import ModernBertConfig
from transformers.models.auto import modeling_auto

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fetch import folder

sys.path.insert(0, str(folder()))
from transformers_mixins.test_configuration_common import ConfigTester
from transformers_mixins.test_modeling_common import (
    ModelTesterMixin,
    ids_tensor,
    random_attention_mask,
)

import rexbert_hf

HEADS = {
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": "ForMaskedLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "ForSequenceClassification",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "ForTokenClassification",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": "ForQuestionAnswering",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES": "ForMultipleChoice",
}
for _mapping, _head in {**HEADS, "MODEL_MAPPING_NAMES": "Model"}.items():
    # The mixin asks these tables, by class name, which inputs and labels a model wants.
    getattr(modeling_auto, _mapping)["rexbert"] = f"RexBert{_head}"
modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES["rexbert-pretraining"] = "RexBertForPreTraining"


class EncoderTester:
    """A tiny encoder and its inputs, for either family."""

    batch_size, seq_length = 5, 9
    vocab_size, hidden_size, intermediate_size = 99, 32, 37
    num_hidden_layers, num_attention_heads = 2, 4
    num_choices = 4
    is_training = True

    def __init__(self, parent: unittest.TestCase, config_class: type[ModernBertConfig]) -> None:
        self.parent, self.config_class = parent, config_class

    def get_config(self) -> ModernBertConfig:
        return self.config_class(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_position_embeddings=64,
            local_attention=8,
            pad_token_id=0,
            bos_token_id=1,
            cls_token_id=1,
            eos_token_id=2,
            sep_token_id=2,
            classifier_pooling="cls",
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[ModernBertConfig, dict[str, Any]]:
        shape = [self.batch_size, self.seq_length]
        return self.get_config(), {
            "input_ids": ids_tensor(shape, self.vocab_size),
            "attention_mask": random_attention_mask(shape),
        }


class EncoderSuite(ModelTesterMixin):
    """Everything of the mixin, and the configuration tests."""

    config_class: type[ModernBertConfig]
    # The mixin skips this test for models that it believes to be older than 2023 (a licence line tells it).
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        self.model_tester = EncoderTester(self, self.config_class)
        self.config_tester = ConfigTester(self, config_class=self.config_class, hidden_size=36)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class StockModernBertTest(EncoderSuite, unittest.TestCase):
    """The control."""

    config_class = ModernBertConfig
    all_model_classes = (
        transformers.ModernBertModel,
        *(getattr(transformers, f"ModernBert{head}") for head in HEADS.values()),
    )


class RexBertTest(EncoderSuite, unittest.TestCase):
    """Ours."""

    config_class = rexbert_hf.RexBertConfig
    all_model_classes = (
        rexbert_hf.RexBertModel,
        *(getattr(rexbert_hf, f"RexBert{head}") for head in HEADS.values()),
    )


class RexBertForPreTrainingTest(EncoderSuite, unittest.TestCase):
    """Ours, the head that stock ModernBERT does not have."""

    config_class = rexbert_hf.RexBertConfig
    all_model_classes = (rexbert_hf.RexBertForPreTraining,)


del EncoderSuite, ModelTesterMixin
