"""Stock ModernBERT weights give stock ModernBERT outputs, in both directions."""

from __future__ import annotations

import json
import logging as std_logging

import pytest
import torch
import transformers
from tiny_models import VOCABULARY, build, documents, padded_batch, tiny_config
from transformers import AutoModel, AutoModelForMaskedLM, ModernBertConfig

import rexbert_hf
from rexbert_hf import RexBertConfig, RexBertForMaskedLM, RexBertModel
from rexbert_hf.models import save_modernbert, to_modernbert
from rexbert_hf.models.modernbert import modernbert_config

HEADS = [
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
]
BIASED = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True, "decoder_bias": True}


def stock_config(**overrides) -> ModernBertConfig:
    return modernbert_config(tiny_config(**overrides))


def stock_model(head: str, **overrides):
    torch.manual_seed(1)
    config = stock_config(**overrides)
    # A short window, so that local layers of these short documents have a border.
    config.local_attention = 8
    return getattr(transformers, f"ModernBert{head}")._from_config(config, attn_implementation="eager").eval()


def batch_for(head: str, side: str = "right") -> dict[str, torch.Tensor]:
    batch = padded_batch(documents([9, 30, 1, 17]), side)
    if head == "ForMultipleChoice":
        batch = {name: value.view(2, 2, -1) for name, value in batch.items()}
    return batch


def outputs(model, head: str, batch) -> list[torch.Tensor]:
    """The outputs at tokens: what stock computes at padding means nothing."""
    with torch.no_grad():
        output = model(**batch)
    mask = batch["attention_mask"].bool()
    if head == "Model":
        return [output.last_hidden_state[mask]]
    if head == "ForQuestionAnswering":
        return [output.start_logits[mask], output.end_logits[mask]]
    return [output.logits if head in ("ForSequenceClassification", "ForMultipleChoice") else output.logits[mask]]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("overrides", [{}, BIASED], ids=["plain", "biased"])
@pytest.mark.parametrize("head", HEADS)
def test_a_stock_checkpoint_loads_and_gives_stock_outputs(tmp_path, head, overrides, backend):
    stock = stock_model(head, **overrides)
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if "bias" in name:
                parameter.normal_()
    stock.save_pretrained(tmp_path)
    ours_class = getattr(rexbert_hf, f"RexBert{head}")
    ours, info = ours_class.from_pretrained(tmp_path, output_loading_info=True, attn_implementation=backend)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert ours.config.model_type == "rexbert"
    batch = batch_for(head)
    for a, b in zip(outputs(ours.eval(), head, batch), outputs(stock, head, batch), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice"])
def test_pooling_equals_stock(head, pooling):
    ours = build(getattr(rexbert_hf, f"RexBert{head}"), classifier_pooling=pooling)
    stock = to_modernbert(ours)
    assert stock.config.classifier_pooling == pooling
    batch = batch_for(head)
    torch.testing.assert_close(outputs(ours, head, batch), outputs(stock, head, batch), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("head", HEADS)
def test_save_modernbert_and_load_without_remote_code(tmp_path, head):
    ours = build(getattr(rexbert_hf, f"RexBert{head}"), attention_output_dropout=0.1)
    ours.save_modernbert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "modernbert"
    assert config["architectures"] == [f"ModernBert{head}"]
    own = {"auto_map", "truncate_dim", "npr_weight", "npr_margin", "npr_normalize", "attention_output_dropout"}
    assert not own & set(config)
    assert not list(tmp_path.glob("*.py"))
    auto = AutoModel if head == "Model" else getattr(transformers, f"AutoModel{head}")
    stock, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(stock).__name__ == f"ModernBert{head}"
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = batch_for(head)
    for a, b in zip(outputs(ours, head, batch), outputs(stock.eval(), head, batch), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


def test_stock_to_ours_and_back_is_lossless(tmp_path):
    stock = stock_model("ForMaskedLM")
    stock.save_pretrained(tmp_path / "stock")
    ours = RexBertForMaskedLM.from_pretrained(tmp_path / "stock")
    save_modernbert(ours, tmp_path / "back")
    back = AutoModelForMaskedLM.from_pretrained(tmp_path / "back")
    state, expected = back.state_dict(), stock.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    ignored = ("_name_or_path", "transformers_version", "dtype", "architectures")
    fields = [{k: v for k, v in m.config.to_dict().items() if k not in ignored} for m in (stock, back)]
    assert fields[0] == fields[1]


def test_pretraining_head_goes_to_stock_masked_lm(tmp_path):
    ours = build(rexbert_hf.RexBertForPreTraining)
    ours.save_modernbert(tmp_path)
    stock = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    batch = batch_for("ForMaskedLM")
    torch.testing.assert_close(
        outputs(ours, "ForMaskedLM", batch), outputs(stock, "ForMaskedLM", batch), atol=2e-5, rtol=2e-5
    )


def test_the_encoder_of_a_masked_lm_checkpoint_loads(tmp_path):
    stock = stock_model("ForMaskedLM")
    stock.save_pretrained(tmp_path)
    ours, info = RexBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    batch = batch_for("Model")
    torch.testing.assert_close(
        outputs(ours.eval(), "Model", batch), outputs(stock.model, "Model", batch), atol=2e-5, rtol=2e-5
    )


def test_a_new_head_on_a_masked_lm_checkpoint_misses_only_its_classifier(tmp_path):
    stock_model("ForMaskedLM").save_pretrained(tmp_path)
    _, info = rexbert_hf.RexBertForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}


def test_stock_losses_equal_ours():
    batch = padded_batch(documents([9, 30, 4, 17]))
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"].flip(1) % VOCABULARY, -100)
    cases = {
        "ForMaskedLM": {"labels": labels},
        "ForTokenClassification": {"labels": labels.where(labels < 0, labels % 2)},
        "ForSequenceClassification": {"labels": torch.tensor([0, 1, 1, 0])},
        "ForQuestionAnswering": {
            "start_positions": torch.tensor([1, 2, 0, 5]),
            "end_positions": torch.tensor([3, 2, 99, 6]),
        },
    }
    for head, wanted in cases.items():
        ours = build(getattr(rexbert_hf, f"RexBert{head}"))
        stock = to_modernbert(ours)
        if head == "ForQuestionAnswering":
            # Stock lets padding take part in the softmax over positions; ours does not, so compare without any.
            batch = padded_batch(documents([9, 9, 9, 9]))
        with torch.no_grad():
            a, b = ours(**batch, **wanted).loss, stock(**batch, **wanted).loss
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, h=head: f"{h}: {m}")


def test_masks_with_gaps_equal_stock():
    """Tokens masked inside a row keep their place: local layers count them in the distance."""
    ours = build(RexBertModel, local_attention=8)
    batch = padded_batch(documents([30, 12]))
    batch["attention_mask"][0, 5:20] = 0
    with torch.no_grad():
        expected = to_modernbert(ours)(**batch).last_hidden_state
        for backend in ("sdpa", "eager"):
            ours.set_attn_implementation(backend)
            found = ours(**batch).last_hidden_state
            mask = batch["attention_mask"].bool()
            torch.testing.assert_close(found[mask], expected[mask], atol=2e-5, rtol=2e-5)
            assert not found[~mask].any()


def test_configurations_with_the_old_fields_load(tmp_path):
    """As the checkpoints of 2024 and 2025 on the Hub write them."""
    fields = {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 7,
        "num_attention_heads": 2,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 80000.0,
        "local_rope_theta": 5000.0,
        "local_attention": 16,
        "reference_compile": True,
        "repad_logits_with_grad": False,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config = RexBertConfig.from_pretrained(tmp_path)
    assert config.model_type == "rexbert"
    assert config.layer_types == ["full_attention", "sliding_attention"] * 3 + ["full_attention"]
    assert config.rope_parameters["full_attention"]["rope_theta"] == 80000.0
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 5000.0
    assert config.architectures == ["RexBertForMaskedLM"]
    # What a stock configuration leaves out has the stock default.
    assert config.classifier_pooling == ModernBertConfig().classifier_pooling == "cls"
    model = RexBertModel(config)
    assert [layer.attn.window for layer in model.layers] == [None, 8] * 3 + [None]


def test_no_warning_about_the_model_type(tmp_path, caplog, monkeypatch):
    stock_model("ForMaskedLM").save_pretrained(tmp_path)
    monkeypatch.setattr(std_logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level("WARNING"):
        RexBertForMaskedLM.from_pretrained(tmp_path)
        RexBertConfig.from_pretrained(tmp_path)
    assert not caplog.records, [r.getMessage() for r in caplog.records]


def test_classes_without_a_stock_form_are_refused():
    class Other(RexBertModel):
        pass

    with pytest.raises(ValueError, match="Other has no ModernBERT form; these have: RexBertModel"):
        to_modernbert(build(Other))


def test_to_modernbert_shares_the_tensors_and_keeps_the_tie():
    ours = build(RexBertForMaskedLM)
    stock = to_modernbert(ours)
    assert stock.decoder.weight is stock.model.embeddings.tok_embeddings.weight
    assert stock.decoder.weight.data_ptr() == ours.decoder.weight.data_ptr()
    assert not any(p.is_meta for p in stock.parameters())
    assert not any(b.is_meta for b in stock.buffers())
