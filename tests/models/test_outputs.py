"""Hidden states and attention maps: shapes and values as stock's."""

from __future__ import annotations

import pytest
import torch
from tiny_models import SHORT_LENGTHS, build, documents, flat_batch, padded_batch
from transformers import AttentionInterface

import rexbert_hf
from rexbert_hf import RexBertForMaskedLM, RexBertModel
from rexbert_hf.models import to_modernbert

DOCS = documents(SHORT_LENGTHS)


def stock_of(model):
    stock = to_modernbert(model)
    stock.set_attn_implementation("eager")
    return stock


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_hidden_states_and_attentions_equal_stock(head, side):
    model = build(getattr(rexbert_hf, f"RexBert{head}"), attn_implementation="eager", local_attention=16)
    batch = padded_batch(DOCS, side)
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        ours = model(**batch, output_hidden_states=True, output_attentions=True)
        theirs = stock_of(model)(**batch, output_hidden_states=True, output_attentions=True)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 5
    assert len(ours.attentions) == len(theirs.attentions) == 4
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a[mask], b[mask], atol=5e-5, rtol=5e-5)
    for a, b in zip(ours.attentions, theirs.attentions, strict=True):
        assert a.shape == b.shape
        # [B, N, S, S] -> the rows of real queries; padding queries mean nothing.
        torch.testing.assert_close(a.transpose(1, 2)[mask], b.transpose(1, 2)[mask], atol=5e-5, rtol=5e-5)
        assert not a.transpose(1, 2)[~mask].any()


def test_attentions_of_a_flat_batch_come_document_by_document():
    model = build(RexBertModel, attn_implementation="eager")
    with torch.no_grad():
        maps = model(**flat_batch(DOCS), output_attentions=True).attentions
        for i, doc in enumerate(DOCS):
            alone = model(doc[None], output_attentions=True).attentions
            for a, b in zip(maps, alone, strict=True):
                torch.testing.assert_close(a[i, :, : len(doc), : len(doc)], b[0], atol=1e-5, rtol=1e-5)
                assert not a[i, :, :, len(doc) :].any()


def test_gradients_reach_hidden_states_and_attentions():
    model = build(RexBertModel, attn_implementation="eager")
    for batch in (padded_batch(documents([5, 9])), flat_batch(documents([5, 9]))):
        output = model(**batch, output_hidden_states=True, output_attentions=True)
        for kept in (*output.hidden_states[:-1], *output.attentions):
            kept.retain_grad()
        output.last_hidden_state.sum().backward()
        assert all(kept.grad is not None for kept in (*output.hidden_states[:-1], *output.attentions))


@pytest.mark.parametrize("wanted", [2, -1, [0, 3], [-2, 1], [99]])
def test_hidden_states_by_index(wanted):
    model = build(RexBertForMaskedLM)
    batch = padded_batch(documents([5, 9]))
    with torch.no_grad():
        every = model(**batch, output_hidden_states=True).hidden_states
        some = model(**batch, output_hidden_states=wanted).hidden_states
    kept = {i % 5 for i in ([wanted] if isinstance(wanted, int) else wanted) if -5 <= i < 5}
    for i, (a, b) in enumerate(zip(some, every, strict=True)):
        assert (a is None) == (i not in kept)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_flags_in_the_config_and_tuples():
    model = build(RexBertModel, output_hidden_states=True)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        output = model(ids)
        as_tuple = model(ids, return_dict=False)
        without = model(ids, output_hidden_states=False)
    assert len(output.hidden_states) == 5
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], output.last_hidden_state)
    assert without.hidden_states is None


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_attn_implementation_may_change(backend):
    model = build(RexBertModel)
    batch = padded_batch(documents([5, 9]))
    with torch.no_grad():
        before = model(**batch).last_hidden_state
        model.set_attn_implementation(backend)
        assert model.config._attn_implementation == backend
        torch.testing.assert_close(model(**batch).last_hidden_state, before, atol=1e-5, rtol=1e-5)


def test_an_attention_that_is_not_there_is_refused():
    """It would run as the slow back-end in silence: transformers accepts whatever is registered with it."""
    AttentionInterface.register("of_ours", lambda *args, **kwargs: None)
    model = build(RexBertModel)
    for name in ("of_ours", "kernels-community/flash-attn2", "flash_attention_4"):
        model.config._attn_implementation_internal = name
        with pytest.raises(ValueError, match=f"attn_implementation='{name}' .*: use 'sdpa'"):
            model(torch.tensor([[1, 5, 2]]))
    assert not RexBertModel.is_backend_compatible()
