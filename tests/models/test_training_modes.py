"""Gradient checkpointing, bfloat16, torch.compile, torch.export, LoRA: the same model by other roads."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.utils.checkpoint
from tiny_models import LENGTHS, SHORT_LENGTHS, build, documents, flat_batch, padded_batch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.neftune import neftune_post_forward_hook

from rexbert_hf import RexBertForMaskedLM, RexBertForSequenceClassification, RexBertModel

DOCS = documents(SHORT_LENGTHS)


def labelled(batch):
    """`batch` with labels on every third token."""
    ids = batch["input_ids"]
    labels = torch.where(torch.arange(ids.shape[1])[None, :] % 3 == 1, ids, -100)
    if "attention_mask" in batch:
        labels = labels.where(batch["attention_mask"] == 1, -100)
    return {**batch, "labels": labels}


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(found, expected, tolerance):
    torch.testing.assert_close(found[0], expected[0], atol=tolerance, rtol=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        scale = max(float(grad.abs().max()), 1e-3)
        torch.testing.assert_close(found[1][name], grad, atol=tolerance * scale, rtol=0, msg=name)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_gradient_checkpointing_gives_the_same_gradients(backend, reentrant):
    model = build(RexBertForMaskedLM, attn_implementation=backend).train()
    batch = labelled(flat_batch(DOCS))
    expected = loss_and_gradients(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    found = loss_and_gradients(model, batch)
    assert len(calls) == 2  # forward, and again in backward
    same(found, expected, 1e-5)


def test_dropout_is_active_in_training_only():
    model = build(RexBertModel, attention_output_dropout=0.5, embedding_dropout=0.5)
    ids = DOCS[0][None]
    with torch.no_grad():
        assert torch.equal(model(ids).last_hidden_state, build(RexBertModel)(ids).last_hidden_state)
        model.train()
        assert not torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state)


@pytest.mark.parametrize("form", ["weights", "autocast"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_bfloat16_is_finite_and_near(form, backend):
    docs = documents(LENGTHS if backend == "sdpa" else SHORT_LENGTHS)
    model = build(RexBertForMaskedLM, attn_implementation=backend)
    batch = labelled(flat_batch(docs))
    expected = loss_and_gradients(model, batch)
    if form == "weights":
        model = copy.deepcopy(model).to(torch.bfloat16)
        found = loss_and_gradients(model, batch)
        assert all(g.dtype == torch.bfloat16 for g in found[1].values())
    else:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        model.zero_grad()
        loss.backward()
        found = loss.detach(), {name: p.grad for name, p in model.named_parameters()}
    assert found[0].dtype == torch.float32
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=0.03)
    for name, grad in expected[1].items():
        assert torch.isfinite(found[1][name]).all(), name
        angle = torch.cosine_similarity(found[1][name].float().flatten(), grad.flatten(), dim=0)
        assert float(angle) > 0.95, f"{name}: {float(angle)}"


def test_bfloat16_packed_equals_padded():
    model = build(RexBertModel, dtype=torch.bfloat16)
    padded = padded_batch(DOCS)
    with torch.no_grad():
        flat = model(**flat_batch(DOCS)).last_hidden_state[0].float()
        rows = model(**padded).last_hidden_state[padded["attention_mask"].bool()].float()
    assert float((flat - rows).abs().max()) < 0.1
    assert float((flat - rows).abs().mean()) < 0.01


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("form", ["left", "flat", "positions"])
def test_compiled_loss_and_gradients_are_the_same(form):
    model = build(RexBertForMaskedLM, num_hidden_layers=2)
    docs = documents([9, 70, 5])
    batch = {
        "left": lambda: padded_batch(docs, "left"),
        "flat": lambda: flat_batch(docs),
        "positions": lambda: flat_batch(docs, "positions"),
    }[form]()
    batch = labelled(batch)
    expected = loss_and_gradients(model, batch)
    compiled = torch.compile(model, backend="aot_eager")
    model.zero_grad()
    loss = compiled(**batch).loss
    loss.backward()
    found = loss.detach(), {name: p.grad for name, p in model.named_parameters()}
    same(found, expected, 1e-4)


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_padding_is_zero_and_the_mask_may_change():
    model = build(RexBertModel, num_hidden_layers=2)
    compiled = torch.compile(model, backend="eager")
    for lengths in ([9, 30], [30, 4]):
        batch = padded_batch(documents(lengths))
        with torch.no_grad():
            found, expected = compiled(**batch).last_hidden_state, model(**batch).last_hidden_state
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert not found[batch["attention_mask"] == 0].any()


def test_the_padded_encoder_exports_with_dynamic_shapes():
    class Encoder(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    model = build(RexBertModel, num_hidden_layers=2)
    example = padded_batch(documents([7, 20, 4]))
    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=2, max=512)
    shapes = {"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}}
    program = torch.export.export(Encoder(model), (), kwargs=example, dynamic_shapes=shapes)
    for lengths in ([7, 20, 4], [90, 3], [5, 6, 7, 8, 150]):
        other = padded_batch(documents(lengths))
        with torch.no_grad():
            expected = model(**other).last_hidden_state
            found = program.module()(**other)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_lora_on_the_attention_trains():
    peft = pytest.importorskip("peft")
    base = build(RexBertForSequenceClassification)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["Wqkv", "attn.Wo"], modules_to_save=["classifier"]
    )
    model = peft.get_peft_model(base, config).train()
    adapted = {
        name.split(".lora_A")[0].rsplit(".", 2)[-2:][-1] for name, _ in model.named_parameters() if "lora_A" in name
    }
    assert adapted == {"Wqkv", "Wo"}
    ids, labels = torch.stack(documents([6] * 4)), torch.tensor([0, 1, 0, 1])
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    trained = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert len(trained) == 8
    assert all(p.any() for p in trained)


def test_lora_with_the_masked_lm_head_trains_only_the_adapter():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(build(RexBertForMaskedLM), peft.LoraConfig(r=2, target_modules=["Wqkv"]))
    batch = labelled(flat_batch(documents([9, 5])))
    model(**batch).loss.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched
    assert all("lora_" in name for name in touched)


def test_initialisation_shrinks_the_outputs_with_depth():
    torch.manual_seed(0)
    model = RexBertForMaskedLM(build(RexBertModel, hidden_size=64, num_hidden_layers=8, initializer_range=0.02).config)
    # A normal law cut at two deviations keeps .8796 of its deviation.
    kept = 0.8796
    layer = model.model.layers[3]
    for weight, std in (
        (layer.attn.Wqkv.weight, 0.02),
        (layer.mlp.Wi.weight, 0.02),
        (layer.attn.Wo.weight, 0.02 / 4),
        (layer.mlp.Wo.weight, 0.02 / 4),
        (model.head.dense.weight, 0.02 / 4),
    ):
        assert float(weight.detach().std()) == pytest.approx(std * kept, rel=0.05)
        assert float(weight.detach().abs().max()) <= 2 * std + 1e-6
    assert torch.equal(layer.attn_norm.weight, torch.ones(64))


class ProductsSeen(TorchDispatchMode):
    """Notes the operators of attention blocks and the dtypes that they read, autocast done."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu"):
            self.found |= {(name, x.dtype) for x in args if isinstance(x, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("lengths", [LENGTHS, [70, 70]], ids=["blocks", "groups"])
def test_attention_on_cpu_is_float32_under_autocast_in_both_directions(lengths):
    model = build(RexBertModel).train()
    batch = flat_batch(documents(lengths))
    seen = ProductsSeen()
    with torch.autocast("cpu", torch.bfloat16), seen:
        model(**batch).last_hidden_state.float().square().sum().backward()
    assert {dtype for _, dtype in seen.found} == {torch.float32}
    blocks = {"bmm", "baddbmm"} if lengths is LENGTHS else set()
    assert {name for name, _ in seen.found} == {"_scaled_dot_product_flash_attention_for_cpu", *blocks}


@pytest.mark.parametrize("make", [flat_batch, padded_batch])
def test_noise_on_embeddings_is_bounded_and_in_training_only(make):
    """NEFTune, a hook of transformers on the embedding: uniform noise below alpha / sqrt(tokens * width)."""
    model = build(RexBertForMaskedLM)
    batch = make(DOCS)
    tokens, width = sum(len(document) for document in DOCS), model.config.hidden_size
    seen = []
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    embedding.register_forward_hook(neftune_post_forward_hook)
    embedding.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output.detach())))
    for training in (True, False):
        model.train(training)
        loss, gradients = loss_and_gradients(model, labelled(batch))
        (ids, output), bound = seen.pop(), 5.0 / (tokens * width) ** 0.5
        noise = output - embedding.weight[ids].detach()
        assert noise.numel() == tokens * width
        if training:
            assert 0.9 * bound < float(noise.abs().max()) <= 1.001 * bound
        else:
            assert not noise.any()
        assert torch.isfinite(loss)
        assert gradients["model.embeddings.tok_embeddings.weight"].abs().sum() > 0


GRID = {"matryoshka_layers": [2, 4], "matryoshka_dims": [16, 32]}


@pytest.mark.parametrize("fields", [{}, GRID], ids=["plain", "grid"])
def test_a_second_derivative_of_the_masked_lm_loss_is_refused(fields):
    """Its first one is a constant for autograd: what goes through the softmax would be missing without a word."""
    model = build(RexBertForMaskedLM, attn_implementation="eager", **fields).train()
    weight, batch = model.head.dense.weight, labelled(flat_batch(documents([9, 5])))
    with pytest.raises(RuntimeError, match=r"no second derivative \(create_graph=True\): take it from the logits$"):
        torch.autograd.grad(model(**batch).loss, [weight], create_graph=True)
    (first,) = torch.autograd.grad(model(**batch).loss, [weight])
    assert first.any()


def test_the_loss_inside_a_reentrant_checkpoint_is_no_second_derivative():
    model = build(RexBertForMaskedLM).train()
    batch = labelled(padded_batch(documents([9, 5])))
    expected = loss_and_gradients(model, batch)
    model.zero_grad()
    embedded = model.get_input_embeddings()(batch.pop("input_ids"))
    inside = torch.utils.checkpoint.checkpoint(
        lambda states: model(inputs_embeds=states, **batch).loss, embedded, use_reentrant=True
    )
    inside.backward()
    same((inside.detach(), {name: p.grad for name, p in model.named_parameters()}), expected, 1e-5)


@pytest.mark.parametrize("head", [RexBertModel, RexBertForMaskedLM])
def test_functional_gradients_are_those_of_autograd(head):
    model = build(head, tie_word_embeddings=False)
    batch = padded_batch(DOCS)
    if head is RexBertForMaskedLM:
        batch = labelled(batch)

    def value(parameters):
        out = torch.func.functional_call(model, parameters, (), batch)
        return out.loss if head is RexBertForMaskedLM else out.last_hidden_state.square().sum()

    parameters = dict(model.named_parameters())
    found = torch.func.grad(value)({name: p.detach() for name, p in parameters.items()})
    for (name, parameter), grad in zip(
        parameters.items(), torch.autograd.grad(value(parameters), list(parameters.values())), strict=True
    ):
        scale = max(float(grad.abs().max()), 1e-3)
        torch.testing.assert_close(found[name], grad, atol=1e-5 * scale, rtol=1e-4, msg=f"{name} {parameter.shape}")
