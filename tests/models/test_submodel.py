"""Sub-models: first layers, first dimensions; and rotary bases that change."""

from __future__ import annotations

import logging as std_logging
import re

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build, documents, flat_batch, padded_batch, tiny_config

import rexbert_hf
from rexbert_hf import RexBertForMaskedLM, RexBertModel

DOCS = documents([9, 70, 17])
HEADS = [
    "ForMaskedLM",
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("form", [flat_batch, padded_batch])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_submodel_is_the_final_norm_of_the_parents_hidden_state(layers, form, dtype):
    parent = build(RexBertModel, dtype=dtype)
    batch = form(DOCS)
    with torch.no_grad():
        states = parent(**batch, output_hidden_states=True).hidden_states
        expected = parent.final_norm(states[layers]) if layers < 4 else states[layers]
        found = parent.submodel(num_hidden_layers=layers)(**batch).last_hidden_state
    if "attention_mask" in batch:
        expected = expected * batch["attention_mask"][:, :, None]
    assert torch.equal(found, expected)


def test_a_submodel_stands_alone(tmp_path):
    parent = build(RexBertForMaskedLM).train()
    child = parent.submodel(num_hidden_layers=2, truncate_dim=16)
    assert child.training
    assert child.decoder.weight is child.get_input_embeddings().weight
    assert (child.config.num_hidden_layers, child.config.truncate_dim) == (2, 16)
    assert child.config.layer_types == parent.config.layer_types[:2]
    assert parent.config.num_hidden_layers == 4
    assert parent.config.truncate_dim is None
    before = parent.model.layers[0].attn.Wo.weight.detach().clone()
    with torch.no_grad():
        child.model.layers[0].attn.Wo.weight.zero_()
    assert torch.equal(parent.model.layers[0].attn.Wo.weight, before)
    child.eval().save_pretrained(tmp_path)
    again = RexBertForMaskedLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(**flat_batch(DOCS)).logits, child(**flat_batch(DOCS)).logits)


def test_a_submodel_keeps_dtype_and_frozen_parts():
    parent = build(RexBertModel, dtype=torch.bfloat16)
    child = parent.submodel(num_hidden_layers=1)
    assert child.dtype == torch.bfloat16


@pytest.mark.parametrize("layers", [0, 5, -1])
def test_layers_out_of_range(layers):
    with pytest.raises(ValueError, match=f"num_hidden_layers={layers} must be an integer between 1 and 4"):
        build(RexBertModel).submodel(num_hidden_layers=layers)


@pytest.mark.parametrize("layers", [0, -1, 5])
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_a_checkpoint_is_not_opened_without_layers(layers, head, tmp_path):
    """`[:0]` and `[:-1]` of the layers' types are lists too: such a model would load, and encode nothing."""
    build(RexBertForMaskedLM).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"num_hidden_layers={layers} must be an integer between 1 and 4"):
        getattr(rexbert_hf, f"RexBert{head}").from_pretrained(tmp_path, num_hidden_layers=layers)


@pytest.mark.parametrize("wrong", [2.0, "2", True])
def test_numbers_that_are_no_integers(wrong, tmp_path):
    """`hidden_size / 4` would fail much later, in a slice, and be saved before that."""
    model = build(RexBertModel)
    message = rf"={re.escape(repr(wrong))} must be an integer between 1 and"
    for cut in ({"num_hidden_layers": wrong}, {"truncate_dim": wrong}):
        with pytest.raises(ValueError, match=f"{next(iter(cut))}{message}"):
            model.submodel(**cut)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"truncate_dim{message}"):
        RexBertModel.from_pretrained(tmp_path, truncate_dim=wrong)


def test_a_width_that_is_not_there_is_an_error_before_any_word_on_the_grid(caplog):
    model = build(RexBertModel, matryoshka_layers=[2, 4], matryoshka_dims=[16])
    with pytest.raises(ValueError, match="truncate_dim=33 must be"):
        model.submodel(2, 33)
    assert "nearest" not in caplog.text


@pytest.mark.parametrize("dim", [0, 33])
def test_dimensions_out_of_range(dim, tmp_path):
    model = build(RexBertModel)
    message = f"truncate_dim={dim} must be an integer between 1 and hidden_size=32"
    with pytest.raises(ValueError, match=message):
        model.submodel(truncate_dim=dim)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        RexBertModel.from_pretrained(tmp_path, truncate_dim=dim)


@pytest.mark.parametrize("head", HEADS)
def test_from_pretrained_cuts_quietly(tmp_path, head, caplog, monkeypatch):
    head_class = getattr(rexbert_hf, f"RexBert{head}")
    parent = build(head_class)
    parent.save_pretrained(tmp_path)
    monkeypatch.setattr(std_logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level("WARNING"):
        child = head_class.from_pretrained(tmp_path, num_hidden_layers=2, truncate_dim=20).eval()
    assert not caplog.records, [r.getMessage() for r in caplog.records]
    cut = parent.submodel(2, 20)
    assert child.state_dict().keys() == cut.state_dict().keys()
    assert all(torch.equal(weight, cut.state_dict()[name]) for name, weight in child.state_dict().items())
    batch = padded_batch(documents([6, 6]))
    if head == "ForMultipleChoice":
        batch = {name: x[:, None] for name, x in batch.items()}
    with torch.no_grad():
        # Not to the last bit: on some processors a product depends on where in memory its factors lie.
        torch.testing.assert_close(child(**batch)[0], cut(**batch)[0], atol=1e-6, rtol=1e-6)


def test_from_pretrained_still_reports_what_does_not_belong(tmp_path):
    """Only layers that were cut off are silent."""
    from safetensors.torch import load_file, save_file

    build(RexBertModel).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["layers.1.surprise.weight"] = torch.zeros(2)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = RexBertModel.from_pretrained(tmp_path, num_hidden_layers=2, output_loading_info=True)
    assert set(info["unexpected_keys"]) == {"layers.1.surprise.weight"}


def test_truncated_masked_lm_reads_the_first_dimensions_only():
    model = build(RexBertForMaskedLM, truncate_dim=12)
    batch = flat_batch(DOCS)
    with torch.no_grad():
        hidden = model.model(**batch).last_hidden_state
        inside = F.gelu(F.linear(hidden[..., :12], model.head.dense.weight[:12, :12]))
        normed = F.layer_norm(inside, (12,), model.head.norm.weight[:12], None, model.config.norm_eps)
        expected = normed @ model.decoder.weight[:, :12].T + model.decoder.bias
        logits = model(**batch).logits
    assert hidden.shape[-1] == 32
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_truncated_heads_train_save_and_reload(tmp_path, head):
    head_class = getattr(rexbert_hf, f"RexBert{head}")
    model = build(head_class, truncate_dim=10, classifier_bias=True, norm_bias=True)
    ids = torch.stack(documents([6, 6]))
    labels = {
        "ForMaskedLM": {"labels": ids},
        "ForPreTraining": {"labels": ids},
        "ForSequenceClassification": {"labels": torch.tensor([0, 1])},
        "ForTokenClassification": {"labels": ids % 2},
        "ForQuestionAnswering": {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 3])},
        "ForMultipleChoice": {"labels": torch.tensor([0, 0])},
    }[head]
    if head == "ForMultipleChoice":
        ids = torch.stack([ids, ids.flip(0)], 1)  # of equal choices none could be better, and no weight had a gradient
    model(ids, **labels).loss.backward()
    assert not model.head.dense.weight.grad[10:].any()
    assert not model.head.dense.weight.grad[:, 10:].any()
    assert model.head.dense.weight.grad[:10, :10].any()
    model.save_pretrained(tmp_path)
    again = head_class.from_pretrained(tmp_path).eval()
    assert again.config.truncate_dim == 10
    with torch.no_grad():
        assert torch.equal(again(ids)[0], model(ids)[0])


SENTENCE_FILES = ("config_sentence_transformers.json", "modules.json", "1_Pooling/config.json")


@pytest.mark.parametrize("form", ["rexbert", "modernbert"])
def test_a_folder_forgets_the_dimensions_of_the_model_that_lay_there(tmp_path, form):
    """Opened by sentence-transformers, a whole model would be cut as the one before it was."""
    model = build(RexBertModel)

    def save(part):
        part.save_pretrained(tmp_path) if form == "rexbert" else part.save_modernbert(tmp_path)

    save(model.submodel(2, 16))
    assert all((tmp_path / name).is_file() for name in SENTENCE_FILES)
    save(model.submodel(2))
    assert not any((tmp_path / name).exists() for name in (*SENTENCE_FILES, "1_Pooling"))
    save(model.submodel(2))  # nothing to take away


@pytest.mark.parametrize("name", SENTENCE_FILES)
@pytest.mark.parametrize(
    "content", ['{"__version__": {}, "truncate_dim": 16}', '{"truncate_dim": 16}', "{cut off", "3"]
)
def test_what_somebody_else_wrote_stays(tmp_path, name, content, caplog, monkeypatch):
    monkeypatch.setattr(std_logging.getLogger("rexbert_hf.models.modernbert"), "handlers", [caplog.handler])
    model = build(RexBertModel)
    model.submodel(2, 16).save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    before = {name: (tmp_path / name).read_text() for name in SENTENCE_FILES}
    for other in (model.submodel(2), model.submodel(2, 8)):
        other.save_pretrained(tmp_path)
        assert {name: (tmp_path / name).read_text() for name in SENTENCE_FILES} == before
    of_its_own = "__version__" in before["config_sentence_transformers.json"]  # sentence-transformers saves it first
    assert ("files written by somebody else stay" in caplog.text) != of_its_own


def test_truncate_dim_may_change_after_loading():
    model = build(RexBertForMaskedLM)
    cut = build(RexBertForMaskedLM, truncate_dim=12)
    model.config.truncate_dim = 12
    with torch.no_grad():
        assert torch.equal(model(**flat_batch(DOCS)).logits, cut(**flat_batch(DOCS)).logits)


def thetas(global_theta: float, local_theta: float) -> dict:
    return {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": global_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
        }
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"global_theta": 500.0}, (500.0, 10_000.0)),
        ({"local_theta": 700}, (160_000.0, 700.0)),
        ({"global_theta": 500.0, "local_theta": 700.0}, (500.0, 700.0)),
        ({}, (160_000.0, 10_000.0)),
    ],
)
@pytest.mark.parametrize("model_class", [RexBertModel, RexBertForMaskedLM])
def test_set_rope_theta_equals_a_fresh_model(model_class, arguments, expected, tmp_path):
    model, fresh = build(model_class), build(model_class, **thetas(*expected))
    batch = flat_batch(DOCS)
    with torch.no_grad():
        before = model(**batch)[0]
        model.set_rope_theta(**arguments)
        after = model(**batch)[0]
        assert torch.equal(after, fresh(**batch)[0])
        assert torch.equal(after, before) == (not arguments)
        model.save_pretrained(tmp_path)
        assert torch.equal(model_class.from_pretrained(tmp_path).eval()(**batch)[0], after)


@pytest.mark.parametrize(
    "scaling",
    [{"rope_type": "linear", "factor": 4.0}, {"rope_type": "yarn", "factor": 4.0, "rope_theta": 160_000.0}],
    ids=["linear", "yarn"],
)
def test_other_rope_types_equal_stock(scaling):
    from rexbert_hf.models import to_modernbert

    parameters = {
        "full_attention": {"rope_theta": 160_000.0, **scaling},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    model = build(RexBertModel, rope_parameters=parameters)
    plain = build(RexBertModel)
    ids = DOCS[1][None]
    with torch.no_grad():
        expected = to_modernbert(model)(ids).last_hidden_state
        torch.testing.assert_close(model(ids).last_hidden_state, expected, atol=2e-5, rtol=2e-5)
        assert not torch.allclose(plain(ids).last_hidden_state, expected, atol=1e-3)


def test_config_object_of_the_parent_is_not_shared():
    config = tiny_config()
    model = RexBertModel(config)
    child = model.submodel(num_hidden_layers=2)
    child.set_rope_theta(global_theta=5.0)
    assert model.config.rope_parameters["full_attention"]["rope_theta"] == 160_000.0
