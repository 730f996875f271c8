"""Adapters, hooks, quantised forms and offloading of the output layers and the embedding: met as any layer's."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build, documents, padded_batch

from rexbert_hf import (
    RexBertForMaskedLM,
    RexBertForMultipleChoice,
    RexBertForQuestionAnswering,
    RexBertForSequenceClassification,
    RexBertForTokenClassification,
)

IDS = torch.stack(documents([9] * 4))
LABELS = torch.where(torch.arange(9) % 2 == 1, IDS, -100)
HEADS = {
    "sequence": (RexBertForSequenceClassification, {"labels": torch.tensor([0, 1, 0, 1])}),
    "token": (RexBertForTokenClassification, {"labels": IDS % 2}),
    "answers": (
        RexBertForQuestionAnswering,
        {"start_positions": torch.tensor([0, 1, 0, 1]), "end_positions": torch.tensor([1, 2, 1, 2])},
    ),
    "choice": (RexBertForMultipleChoice, {"labels": torch.tensor([0, 1])}),
    "masked": (RexBertForMaskedLM, {"labels": LABELS, "return_logits": "all"}),
}


def outputs(model, head, extra):
    """Loss and logits, the second without labels too."""
    ids = IDS.view(2, 2, 9) if head == "choice" else IDS
    with torch.no_grad():
        first, second = model(input_ids=ids, **extra), model(input_ids=ids)
    return first.loss, *(out["start_logits" if head == "answers" else "logits"] for out in (first, second))


@pytest.mark.parametrize("truncate_dim", [None, 16])
@pytest.mark.parametrize("head", HEADS)
def test_lora_on_an_output_layer_trains_and_merges(head, truncate_dim):
    peft = pytest.importorskip("peft")
    model_class, extra = HEADS[head]
    base = build(model_class, truncate_dim=truncate_dim, tie_word_embeddings=False)
    targets = ["decoder" if head == "masked" else "classifier", "head.dense"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=targets)).eval()
    plain = outputs(base, head, extra)
    model(input_ids=IDS.view(2, 2, 9) if head == "choice" else IDS, **extra).loss.backward()
    raised = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    assert len(raised) == 2
    for name, parameter in raised.items():
        assert parameter.grad.any(), name
        torch.nn.init.normal_(parameter.data)
    found = outputs(model, head, extra)
    assert all(not torch.allclose(mine, before, atol=1e-3) for mine, before in zip(found, plain, strict=True))
    for mine, merged in zip(found, outputs(model.merge_and_unload(), head, extra), strict=True):
        torch.testing.assert_close(mine, merged, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("grid", [None, {"matryoshka_layers": [2, 4], "matryoshka_dims": [16, 32]}])
def test_a_decoder_with_a_hook_gives_the_same_loss_gradients_and_ranks(grid):
    fields = {**grid, "matryoshka_kl_weight": 0.5, "matryoshka_weights": [0.5, 1.0, 2.0, 1.0]} if grid else {}
    model = build(RexBertForMaskedLM, decoder_bias=True, **fields).train()
    batch = {**padded_batch(documents([9, 5, 70])), "return_ranks": True}
    batch["labels"] = batch["input_ids"].where(batch["attention_mask"].bool(), -100)
    calls, found = [], []
    for hooked in (False, True):
        if hooked:
            model.decoder.register_forward_hook(lambda *_: calls.append(1))
        model.zero_grad()
        out = model(**batch)
        out.loss.backward()
        found.append((out, {name: p.grad.clone() for name, p in model.named_parameters()}))
    (plain, expected), (called, gradients) = found
    assert calls
    torch.testing.assert_close(called.loss, plain.loss)
    assert torch.equal(called.label_ranks, plain.label_ranks)
    assert (int(called.correct), int(called.num_labels)) == (int(plain.correct), int(plain.num_labels))
    for name, grad in expected.items():
        torch.testing.assert_close(gradients[name], grad, atol=1e-5, rtol=1e-4, msg=name)


def test_a_hook_before_the_gradient_of_a_decoder_is_met():
    model, calls = build(RexBertForMaskedLM), []
    model.decoder.register_full_backward_pre_hook(lambda *_: calls.append(1))
    model(input_ids=IDS, labels=LABELS).loss.backward()
    assert calls == [1]


@pytest.mark.parametrize("broken", [0.0, torch.nan])
def test_ties_and_what_is_no_number_count_against_the_label_of_a_called_decoder(broken):
    model = build(RexBertForMaskedLM)
    model.decoder.register_forward_hook(lambda module, inputs, output: output * 0 + broken)
    out = model(IDS, labels=LABELS, return_ranks=True)
    assert int(out.correct) == 0
    assert out.label_ranks.tolist() == [model.config.vocab_size - 1] * int(out.num_labels)


@pytest.mark.filterwarnings("ignore:.*quantization:DeprecationWarning")
@pytest.mark.parametrize("head", HEADS)
def test_heads_run_quantised(head):
    if torch.backends.quantized.engine == "none":
        pytest.skip("torch was built without a quantisation engine")
    model_class, extra = HEADS[head]
    model = build(model_class)
    expected = outputs(model, head, extra)
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    for mine, exact in zip(outputs(quantised, head, extra), expected, strict=True):
        assert torch.cosine_similarity(mine.flatten(), exact.flatten(), dim=0) > 0.9


@pytest.mark.parametrize("head", ["sequence", "masked"])
@pytest.mark.parametrize(
    "adapter",
    [{"target_modules": ["Wqkv"], "trainable_token_indices": [5, 6]}, {"target_modules": ["tok_embeddings"]}],
    ids=["tokens", "lora"],
)
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
def test_adapters_of_the_token_embedding_train(adapter, head):
    peft = pytest.importorskip("peft")
    model_class, extra = HEADS[head]
    model = peft.get_peft_model(build(model_class), peft.LoraConfig(r=2, **adapter)).train()
    model(input_ids=torch.where(IDS % 2 == 0, 5, IDS), **extra).loss.backward()
    # One of LoRA's two factors starts at zero, and the other one has no gradient then.
    names = ("trainable_tokens", "lora_embedding_A")
    trained = [p for name, p in model.named_parameters() if any(part in name for part in names)]
    assert trained
    assert all(p.grad.any() for p in trained)


def test_any_module_may_be_the_token_embedding():
    model = build(RexBertForSequenceClassification)
    expected = model(IDS).logits
    model.set_input_embeddings(torch.nn.Sequential(model.get_input_embeddings(), torch.nn.Identity()))
    assert torch.equal(model(IDS).logits, expected)


@pytest.mark.parametrize("head", HEADS)
def test_offloaded_models_give_the_same(head):
    accelerate = pytest.importorskip("accelerate")
    model_class, extra = HEADS[head]
    model = build(model_class, tie_word_embeddings=False)
    expected = outputs(model, head, extra)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.model.embeddings.norm.weight.device.type == "meta"
    for mine, plain in zip(outputs(model, head, extra), expected, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)
