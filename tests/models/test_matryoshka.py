"""The grid loss against a plain float64 transcription, its gradients, its sampling; sub-models are what was trained."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch
import torch.nn.functional as F

from rexbert_hf.models import (
    RexBertConfig,
    RexBertForMaskedLM,
    RexBertForSequenceClassification,
    RexBertModel,
    losses_rexbert,
    matryoshka_rexbert,
)
from rexbert_hf.models.matryoshka_rexbert import Grid, grid_cross_entropy

LAYERS, DIMS = [1, 2, 4], [4, 12, 16]


def tiny(**fields):
    torch.manual_seed(0)
    base = {"num_hidden_layers": 4, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = RexBertConfig(**base, vocab_size=50, pad_token_id=0, initializer_range=0.3, **fields)
    model = RexBertForMaskedLM(config)
    with torch.no_grad():  # norms and biases that do something
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.double().train()


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 50, (3, 9), generator=generator)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    labels = torch.where((torch.rand(3, 9, generator=generator) < 0.4) & mask.bool(), ids, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def cell_logits(model, states, layers, dim, norm_intermediate=True):
    """Logits of a cell, from all hidden states of a stock-like forward pass, written out."""
    depth = model.config.num_hidden_layers
    hidden = states[layers]  # transformers' way: the last one is normed already
    if layers < depth and norm_intermediate:
        hidden = model.model.final_norm(hidden)
    dense, norm, weight = model.head.dense, model.head.norm, model.decoder.weight
    x = hidden[..., :dim] @ dense.weight[:dim, :dim].T
    if dense.bias is not None:
        x = x + dense.bias[:dim]
    x = F.gelu(x)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight[:dim]
    return x @ weight[:, :dim].T + model.decoder.bias


def transcribed(model, inputs, cells, weights, kl=0.0, norm_intermediate=True):
    states = model.model(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True).hidden_states
    places = inputs["labels"] != -100
    targets = inputs["labels"][places]
    teacher = cell_logits(model, states, *max(cells, key=lambda c: (c[1], c[0])), norm_intermediate)[places].detach()
    total = 0
    for (layers, dim), weight in zip(cells, weights, strict=True):
        logits = cell_logits(model, states, layers, dim, norm_intermediate)[places]
        total = total + weight * F.cross_entropy(logits, targets)
        if kl and (layers, dim) != max(cells, key=lambda c: (c[1], c[0])):
            divergence = F.kl_div(logits.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none")
            total = total + weight * kl * divergence.sum(-1).mean()
    return total


def drawn(config, count, weights):
    """Cells of the step that seed 5 draws; but for the largest one they stand for all the others."""
    torch.manual_seed(5)
    cells = Grid.of(config).sample(count).cells
    factor = (len(weights) - 1) / (count - 1)
    return cells, [weights[cell] * (1 if cell == (4, 16) else factor) for cell in cells]


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"matryoshka_weights": [0.5, 1, 2, 0.25, 3, 1, 1, 0.1, 1.5]},
        {"matryoshka_kl_weight": 0.7},
        {"matryoshka_kl_weight": 0.7, "matryoshka_weights": [0.5, 1, 2, 0.25, 3, 1, 0, 0.1, 1.5]},
        {"matryoshka_kl_weight": 0.7, "matryoshka_sample": 3},
        {"matryoshka_kl_weight": 0.7, "matryoshka_sample": 4, "matryoshka_weights": [1, 2, 3, 4, 5, 6, 7, 8, 9]},
        {"matryoshka_kl_weight": 1.3, "norm_intermediate": False},
        {
            "matryoshka_layers": None,
            "matryoshka_dims": None,
            "matryoshka_cells": [[4, 16], [1, 16], [2, 12], [1, 4]],  # not by size, and one as wide as the largest
            "matryoshka_weights": [2, 0.5, 3, 0.25],
            "matryoshka_kl_weight": 0.7,
        },
        {"norm_intermediate": False},
        {"matryoshka_layers": None, "matryoshka_dims": None, "matryoshka_cells": [[1, 4], [2, 12], [4, 16]]},
        {"matryoshka_layers": None},
        {"matryoshka_dims": None},
    ],
)
def test_the_grid_loss_is_the_written_out_sum(fields, tiles, monkeypatch):
    if tiles:  # several blocks of rows and of the vocabulary, none of them full at its end
        monkeypatch.setattr(losses_rexbert, "CPU_ROWS", 5)
        monkeypatch.setattr(losses_rexbert, "CPU_COLUMNS", 16)
        monkeypatch.setattr(matryoshka_rexbert, "TEACHER_ELEMENTS", 150)
    model = tiny(**{"matryoshka_layers": LAYERS, "matryoshka_dims": DIMS, **fields})
    inputs = batch()
    torch.manual_seed(5)
    out = model(**inputs)
    out.loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    cells = model.config.matryoshka_grid()
    weights = fields.get("matryoshka_weights", [1.0] * len(cells))
    if "matryoshka_sample" in fields:
        cells, weights = drawn(model.config, fields["matryoshka_sample"], dict(zip(cells, weights, strict=True)))
    kl, normed = fields.get("matryoshka_kl_weight", 0.0), fields.get("norm_intermediate", True)
    wanted = transcribed(model, inputs, cells, weights, kl, normed)
    wanted.backward()
    torch.testing.assert_close(out.loss, wanted, rtol=1e-9, atol=1e-9)
    states = model.model(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True).hidden_states
    guesses = cell_logits(model, states, 4, 16)[inputs["labels"] != -100].argmax(-1)
    assert int(out.correct) == int((guesses == inputs["labels"][inputs["labels"] != -100]).sum())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-7, atol=1e-9, msg=name)


def test_the_objectives_name_the_loss_that_the_model_computes():
    from rexbert_hf import objectives

    for name in objectives.matryoshka.__all__:
        assert getattr(objectives.matryoshka, name) is getattr(matryoshka_rexbert, name)
    assert objectives.grid_cross_entropy is grid_cross_entropy


def test_hits_are_the_largest_cells_and_evaluation_is_plain():
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS), batch()
    trained = model(**inputs)
    model.eval()
    plain = model(**inputs)
    assert int(trained.correct) == int(plain.correct)
    assert int(trained.num_labels) == int(plain.num_labels)
    places = inputs["labels"] != -100
    logits = model(inputs["input_ids"], inputs["attention_mask"]).logits[places]
    torch.testing.assert_close(plain.loss, F.cross_entropy(logits, inputs["labels"][places]))


@pytest.mark.parametrize("asked", [{"return_logits": "masked"}, {"return_ranks": True}, {"return_logits": "all"}])
def test_what_else_is_asked_for_does_not_change_the_loss(asked):
    """Logits and ranks of the whole model beside the loss of the grid, with the gradients of the grid."""
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS, matryoshka_kl_weight=0.3), batch()
    plain, found = model(**inputs), model(**inputs, **asked)
    assert torch.equal(plain.loss, found.loss)
    grads = [torch.autograd.grad(out.loss, list(model.parameters())) for out in (plain, found)]
    for name, wanted, got in zip(dict(model.named_parameters()), *grads, strict=True):
        assert torch.equal(wanted, got), name
    whole = model.eval()(**inputs, **asked)
    for name in ("logits", "label_ranks", "correct", "num_labels"):
        got, wanted = getattr(found, name), getattr(whole, name)
        assert (got is None) == (wanted is None), name
        if got is not None:
            torch.testing.assert_close(got, wanted, msg=name)
    assert float(found.loss.detach()) > 2 * float(whole.loss.detach())  # nine cells


def test_a_flat_batch_gives_the_same_loss():
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS), batch()
    kept = inputs["attention_mask"].bool()
    flat = {"input_ids": inputs["input_ids"][kept][None], "labels": inputs["labels"][kept][None]}
    borders = torch.tensor([0, *inputs["attention_mask"].sum(1).cumsum(0).tolist()], dtype=torch.int32)
    torch.testing.assert_close(model(**flat, cu_seq_lens_q=borders).loss, model(**inputs).loss)


def test_gradient_reaches_each_cell_alone():
    """A cell of weight 0 gives nothing: with one cell's weight at 1, only its layers and dimensions get gradients."""
    cells = list(itertools.product(LAYERS, DIMS))
    for number, (layers, dim) in enumerate(cells):
        weights = [float(i == number) for i in range(len(cells))]
        model = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS, matryoshka_weights=weights)
        model(**batch()).loss.backward()
        assert model.head.dense.weight.grad[:dim, :dim].abs().sum() > 0
        assert model.head.dense.weight.grad[dim:].abs().sum() == 0
        for depth, layer in enumerate(model.model.layers, start=1):
            moved = layer.mlp.Wi.weight.grad
            assert (moved is not None and bool(moved.abs().sum() > 0)) == (depth <= layers)


def test_sampled_cells_are_unbiased():
    """The mean over all draws of two of the eight other cells is the whole sum; the largest cell is always there."""
    whole = Grid.of(tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS).config)
    values = torch.rand(len(whole.cells)).tolist()
    found, count = 0.0, 0
    seen = set()
    for seed in range(4000):
        torch.manual_seed(seed)
        drawn = whole.sample(3)
        assert len(drawn.cells) == 3
        assert drawn.cells[-1] == (4, 16)
        seen.add(drawn.cells)
        found += sum(w * values[whole.cells.index(cell)] for cell, w in zip(drawn.cells, drawn.weights, strict=True))
        count += 1
    assert len(seen) == 28  # 8 over 2
    assert found / count == pytest.approx(sum(values), rel=0.03)
    assert whole.sample(0) is whole
    assert whole.sample(9) is whole


def test_a_sampled_step_is_the_sum_of_its_cells():
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS, matryoshka_sample=3), batch()
    torch.manual_seed(5)
    grid = Grid.of(model.config).sample(3)
    torch.manual_seed(5)
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, transcribed(model, inputs, list(grid.cells), grid.weights))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(reentrant):
    """Layers run twice there; the states of a cell are taken once."""
    found = {}
    for checkpointed in (False, True):
        model = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS, matryoshka_sample=3)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(5)
        loss = model(**batch()).loss
        loss.backward()
        found[checkpointed] = {name: parameter.grad for name, parameter in model.named_parameters()} | {"loss": loss}
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, msg=name)


def test_no_labelled_token_gives_zero():
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS, matryoshka_kl_weight=1.0), batch()
    inputs["labels"].fill_(-100)
    loss = model(**inputs).loss
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_in_half_precision_the_sum_is_near():
    hidden = [torch.randn(6, 4), torch.randn(6, 8)]
    weight, bias, labels = torch.randn(30, 8), torch.randn(30), torch.tensor([3, -100, 29])
    exact, _ = grid_cross_entropy(
        [h.double() for h in hidden], weight.double(), bias.double(), labels, [[1, 2], [1, 1]]
    )
    near, _ = grid_cross_entropy(
        [h.bfloat16() for h in hidden], weight.bfloat16(), bias.bfloat16(), labels, [[1, 2], [1, 1]]
    )
    assert float(near) == pytest.approx(float(exact), rel=0.02)


@pytest.mark.parametrize("layers", LAYERS)
def test_a_sub_model_is_the_normed_hidden_state_to_the_last_bit(layers):
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS).float().eval(), batch()
    states = model.model(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True).hidden_states
    wanted = states[layers] if layers == 4 else model.model.final_norm(states[layers])
    cut = model.model.submodel(layers, 4)
    found = cut(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    kept = inputs["attention_mask"].bool()
    assert torch.equal(found[kept], wanted[kept])


def test_a_sub_model_predicts_what_its_cell_was_trained_for(tmp_path):
    model, inputs = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS).eval(), batch()
    states = model.model(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True).hidden_states
    model.save_pretrained(tmp_path)
    opened = RexBertForMaskedLM.from_pretrained(tmp_path, num_hidden_layers=2, truncate_dim=12, dtype=torch.float64)
    for cut in (model.submodel(2, 12), opened.eval()):
        assert cut.config.matryoshka_grid() == []
        logits = cut(inputs["input_ids"], inputs["attention_mask"]).logits
        kept = inputs["attention_mask"].bool()
        torch.testing.assert_close(logits[kept], cell_logits(model, states, 2, 12)[kept])


@pytest.mark.parametrize("way", ["submodel", "from_pretrained", "twice"])
def test_without_the_norm_in_between_a_cut_model_has_none(tmp_path, way):
    """`norm_intermediate=false`, the released m3BERT's way: the logits are those of the cell that was trained."""
    model = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS, norm_intermediate=False).eval()
    inputs, kept = batch(), batch()["attention_mask"].bool()
    states = model.model(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True).hidden_states
    model.save_pretrained(tmp_path / "whole")
    if way == "from_pretrained":
        options = {"num_hidden_layers": 2, "truncate_dim": 12, "dtype": torch.float64}
        cut, told = RexBertForMaskedLM.from_pretrained(tmp_path / "whole", output_loading_info=True, **options)
        assert not told["missing_keys"]
        assert not told["unexpected_keys"]
    else:
        cut = model.submodel(2, 12) if way == "submodel" else model.submodel(3).submodel(2, 12)
    cut.eval().save_pretrained(tmp_path / "cut")
    again = RexBertForMaskedLM.from_pretrained(tmp_path / "cut", dtype=torch.float64).eval()
    wanted = cell_logits(model, states, 2, 12, norm_intermediate=False)[kept]
    assert (wanted - cell_logits(model, states, 2, 12)[kept]).abs().max() > 0.1
    for found in (cut, again):
        torch.testing.assert_close(found(inputs["input_ids"], inputs["attention_mask"]).logits[kept], wanted)
    with pytest.raises(ValueError, match="norm_intermediate=false and cut has no final norm"):
        again.save_modernbert(tmp_path / "stock")
    model.save_modernbert(tmp_path / "stock")  # the whole model has its norm
    assert model.submodel(4, 12).config.apply_final_norm


def test_a_grid_without_the_whole_model_is_not_trained():
    """Layers 3 and 4 would get no gradient, and the divergence would be from another teacher than the full cell."""
    for fields in ({"matryoshka_layers": [1, 2], "matryoshka_dims": [4, 16]}, {"matryoshka_cells": [[1, 4], [4, 12]]}):
        model = tiny(**fields)
        with pytest.raises(ValueError, match="the whole model, 4 layers x 16 dimensions, is no cell of the grid"):
            model(**batch())
        model.eval()(**batch())  # such a checkpoint may be read and cut


def test_a_task_head_says_that_its_cells_are_those_of_pre_training(tmp_path, caplog):
    model = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS)
    model.save_pretrained(tmp_path)
    own = logging.getLogger("rexbert_hf.models.encoder_rexbert")
    own.addHandler(caplog.handler)
    try:
        RexBertForSequenceClassification.from_pretrained(tmp_path, num_hidden_layers=2, truncate_dim=12)
        assert "not in fine-tuning" not in caplog.text  # cut before it is fine-tuned
        head = RexBertForSequenceClassification.from_pretrained(tmp_path)
        head.submodel(4, 16)
        assert "not in fine-tuning" not in caplog.text
        head.save_pretrained(tmp_path / "head")
        for cut in (lambda: head.submodel(2, 12), lambda: open_cut(tmp_path / "head")):
            caplog.clear()
            cut()
            assert "2 layers x 12 dimensions was trained in pre-training, not in fine-tuning" in caplog.text
    finally:
        own.removeHandler(caplog.handler)


def open_cut(folder):
    return RexBertForSequenceClassification.from_pretrained(folder, num_hidden_layers=2, truncate_dim=12)


def test_an_untrained_cell_is_named_with_its_nearest(caplog, tmp_path):
    model = tiny(matryoshka_layers=LAYERS, matryoshka_dims=DIMS)
    root = logging.getLogger("transformers")
    caplog.set_level(logging.WARNING)
    root.addHandler(caplog.handler)
    # The package's own logger: transformers' logging hangs below its root only inside transformers.
    own = logging.getLogger("rexbert_hf.models.encoder_rexbert")
    own.addHandler(caplog.handler)
    try:
        model.submodel(2, 12)
        assert not caplog.records
        model.submodel(3, 12)
        assert "3 layers x 12 dimensions is no cell that was trained; the nearest one is" in caplog.text
        caplog.clear()
        model.save_pretrained(tmp_path)
        RexBertModel.from_pretrained(tmp_path, num_hidden_layers=4, truncate_dim=13)
        assert "the nearest one is 4 x 12" in caplog.text
        with pytest.raises(ValueError, match="truncate_dim=17"):
            model.submodel(2, 17)
        with pytest.raises(ValueError, match="num_hidden_layers=5"):
            model.submodel(5)
    finally:
        own.removeHandler(caplog.handler)
        root.removeHandler(caplog.handler)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"matryoshka_layers": [5]}, "cell of 5 layers x 16"),
        ({"matryoshka_dims": [0]}, "x 0 dimensions"),
        ({"matryoshka_layers": [1, 1]}, "named twice"),
        ({"matryoshka_layers": [1, 4], "matryoshka_weights": [1.0]}, "1 matryoshka_weights for 2 cells"),
        ({"matryoshka_layers": [1, 4], "matryoshka_sample": -1}, "sample=-1 cells in a step: 2 or more"),
        ({"matryoshka_layers": [1, 4], "matryoshka_sample": 1}, "would leave the others out"),
        ({"matryoshka_layers": [1, 4], "matryoshka_weights": [1.0, -1.0]}, "finite and not negative"),
        ({"matryoshka_layers": [1, 4], "matryoshka_weights": [1.0, float("nan")]}, "finite and not negative"),
        ({"matryoshka_layers": [1, 4], "matryoshka_kl_weight": float("inf")}, "finite and not negative"),
        ({"matryoshka_layers": [4], "matryoshka_cells": [[4, 16]]}, "in place of layers and dims"),
        ({"matryoshka_cells": [[3]]}, r"cells are pairs \(layers, dimensions\); got \[\[3\]\]"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)
