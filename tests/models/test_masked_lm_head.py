"""The masked-LM head: what comes back in which mode, and ids outside the vocabulary."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_models import VOCABULARY, build, documents, flat_batch, padded_batch
from transformers.utils import find_labels

from rexbert_hf import RexBertForMaskedLM, RexBertForPreTraining, RexBertModel

DOCS = documents([9, 70, 17])
LABELS = torch.cat([torch.where(torch.arange(len(d)) % 3 == 1, d.flip(0), -100) for d in DOCS])[None]


@pytest.fixture(scope="module")
def model():
    return build(RexBertForMaskedLM)


def test_modes(model):
    batch = flat_batch(DOCS)
    with torch.no_grad():
        full = model(**batch)
        loss = model(**batch, labels=LABELS)
        masked = model(**batch, labels=LABELS, return_logits="masked")
        everything = model(**batch, labels=LABELS, return_logits="all", return_ranks=True)
    assert full.loss is None
    assert full.logits.shape == (1, 96, VOCABULARY)
    assert loss.logits is None
    assert loss.label_ranks is None
    chosen = LABELS != -100
    torch.testing.assert_close(masked.logits, full.logits[chosen], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(everything.logits, full.logits)
    expected = F.cross_entropy(full.logits[chosen], LABELS[chosen])
    for output in (loss, masked, everything):
        torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)
        assert int(output.num_labels) == int(chosen.sum())
    assert int(loss.correct) == int((full.logits[chosen].argmax(1) == LABELS[chosen]).sum())
    better = full.logits[chosen] > full.logits[chosen].gather(1, LABELS[chosen][:, None])
    assert torch.equal(everything.label_ranks, better.sum(1))


def test_a_known_number_of_targets_asks_nobody_for_it(model, monkeypatch):
    batch = flat_batch(DOCS) | {"labels": LABELS}
    expected = model(**batch, return_ranks=True)
    monkeypatch.setattr(torch.Tensor, "nonzero", None)
    found = model(**batch, return_ranks=True, num_targets=int((LABELS != -100).sum()))
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.label_ranks, expected.label_ranks)


def test_the_argument_is_no_label_to_the_stock_trainer():
    assert find_labels(RexBertForMaskedLM) == find_labels(RexBertForPreTraining) == ["labels"]


def test_an_encoder_of_a_masked_lm_checkpoint_loads_without_a_report(model, tmp_path, caplog, monkeypatch):
    """A key that no class of pre-training has is still reported."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for known in (True, False):
        caplog.clear()
        if not known:
            save_file(weights | {"strange.weight": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
        with caplog.at_level("WARNING", logger="transformers"):
            encoder, info = RexBertModel.from_pretrained(tmp_path, output_loading_info=True)
        assert ("strange.weight" in caplog.text) is not known
        assert "head.norm.weight" not in caplog.text
        assert not info["missing_keys"]
        assert torch.equal(encoder.final_norm.weight, model.model.final_norm.weight)


def test_fields_come_in_their_declared_order(model):
    """`output[0]` and the tuple start with the loss, whatever else was asked for."""
    batch = flat_batch(DOCS)
    with torch.no_grad():
        output = model(**batch, labels=LABELS, return_logits="all", output_hidden_states=True)
        as_tuple = model(**batch, labels=LABELS, return_logits="all", output_hidden_states=True, return_dict=False)
        plain = model(**batch, output_hidden_states=True, return_dict=False)
    assert list(output)[:3] == ["loss", "logits", "hidden_states"]
    assert output[0] is output.loss
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], output.loss)
    assert plain[0].shape == (1, 96, VOCABULARY)


def test_unknown_mode_is_refused(model):
    with pytest.raises(ValueError, match="return_logits='some' must be None, 'masked' or 'all'"):
        model(**flat_batch(DOCS), labels=LABELS, return_logits="some")


def test_num_items_in_batch(model):
    batch = flat_batch(DOCS)
    with torch.no_grad():
        mean = model(**batch, labels=LABELS)
        for items in (1000, torch.tensor(1000)):
            divided = model(**batch, labels=LABELS, num_items_in_batch=items)
            torch.testing.assert_close(divided.loss * 1000, mean.loss * mean.num_labels)


def test_no_labelled_token_is_a_zero_loss_that_trains(model):
    model.zero_grad()
    output = model(**flat_batch(DOCS), labels=torch.full_like(LABELS, -100))
    assert float(output.loss.detach()) == 0.0
    assert int(output.num_labels) == 0
    output.loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(not g.any() for g in grads)


def test_a_label_at_padding_is_refused(model):
    """A label at padding (a careless collator) must not silently become the label of another token."""
    batch = padded_batch(documents([4, 9]))
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, 2] = 5
    with torch.no_grad():
        expected = model(**batch, labels=labels)
        labels[0, 7] = 6
    with pytest.raises(ValueError, match="row 0 has a label at position 7, which is padding: set it to -100"):
        model(**batch, labels=labels)
    assert int(expected.num_labels) == 1


@pytest.mark.parametrize("shape", [(2, 8), (9, 2), (18,), (1, 18), (2, 10)])
def test_labels_of_another_shape_are_refused(model, shape):
    """Labels of another batch, or of another order, would count for tokens that they do not belong to."""
    batch = padded_batch(documents([4, 9]))
    with pytest.raises(
        ValueError, match=r"labels have the shape .*, the tokens \(2, 9\): give each token a label"
    ) as error:
        model(**batch, labels=torch.full(shape, 5))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [VOCABULARY, VOCABULARY + 500, -1])
def test_token_ids_outside_the_embedding_are_named(bad):
    ids = torch.tensor([[3, 4, bad, 5]])
    message = f"input_ids holds token id {bad}, but the embedding has {VOCABULARY} rows .*resize_token_embeddings"
    with pytest.raises(ValueError, match=message) as error:
        build(RexBertModel)(ids)
    assert "\n" not in str(error.value)


def test_ids_at_padding_do_not_count(model):
    """Padding is dropped before the embedding, so a pad id outside the vocabulary does no harm."""
    batch = padded_batch(documents([4, 9]))
    batch["input_ids"][batch["attention_mask"] == 0] = 10**6
    with torch.no_grad():
        assert torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize("bad", [VOCABULARY, -7])
def test_labels_outside_the_vocabulary_are_named(model, bad):
    labels = torch.tensor([[-100, bad, -100, 3]])
    with pytest.raises(ValueError, match=f"labels holds token id {bad}"):
        model(torch.tensor([[3, 4, 5, 6]]), labels=labels)


def test_neither_or_both_inputs_are_refused():
    model = build(RexBertModel)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(torch.tensor([[3]]), inputs_embeds=torch.zeros(1, 1, 32))


def test_inputs_embeds_equal_input_ids(model):
    embedding = model.get_input_embeddings()
    for batch in (flat_batch(DOCS), padded_batch(DOCS, "left")):
        ids = batch.pop("input_ids")
        with torch.no_grad():
            by_ids = model(input_ids=ids, **batch).logits
            by_embeds = model(inputs_embeds=embedding(ids), **batch).logits
        assert torch.equal(by_ids, by_embeds)


@pytest.mark.parametrize("size", [VOCABULARY + 23, VOCABULARY - 40])
def test_resize_token_embeddings(size):
    model = build(RexBertForMaskedLM)
    old, bias = model.get_input_embeddings().weight.detach().clone(), model.decoder.bias.detach().clone()
    model.resize_token_embeddings(size)
    kept = min(size, VOCABULARY)
    assert model.config.vocab_size == size
    assert model.decoder.weight is model.get_input_embeddings().weight
    assert model.decoder.weight.shape == (size, 32)
    assert model.decoder.bias.shape == (size,)
    assert torch.equal(model.decoder.weight[:kept], old[:kept])
    assert torch.equal(model.decoder.bias[:kept], bias[:kept])
    model.train()
    ids = torch.tensor([[3, 4, size - 1, 5]])
    before = model.decoder.weight[size - 1].detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    assert not torch.equal(model.decoder.weight[size - 1], before)
    assert model(ids).logits.shape == (1, 4, size)


def test_the_device_is_asked_for_the_labels_before_the_encoder_runs(monkeypatch):
    """Their number is what the host waits for; afterwards it would wait for the whole encoder."""
    events, nonzero = [], torch.Tensor.nonzero
    model = build(RexBertForMaskedLM)
    model.model.register_forward_pre_hook(lambda *_: events.append("encoder"))
    monkeypatch.setattr(torch.Tensor, "nonzero", lambda *args: events.append("labels") or nonzero(*args))
    model(**flat_batch(DOCS), labels=LABELS)
    assert events == ["labels", "encoder"]
