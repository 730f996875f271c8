"""Losses over a grid beside a float64 transcription and beside the sub-models one by one; one forward pass; errors."""

from __future__ import annotations

import logging
import math
import random

import numpy as np
import pytest
import torch
from search_cases import QUERIES, TEXTS, features_of, tiny_data, tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel

from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.retrieval.training import grid_encoder
from rexbert_hf.retrieval.training.biencoder import wrap_encoder
from rexbert_hf.retrieval.training.grid_encoder import GridEncoder, encode_grid
from rexbert_hf.retrieval.training.grid_losses import GridLoss, stock_grid_loss
from rexbert_hf.retrieval.training.grid_settings import (
    GridSettings,
    fine_tuning_grid,
    make_grid,
    note_cells,
    trained_cells,
)
from rexbert_hf.retrieval.training.grid_submodel import cut_biencoder
from rexbert_hf.retrieval.training.losses import KnownPositives, MaskedRankingLoss, ThreePartHingeLoss
from rexbert_hf.settings.running import leave_group

QUERY_TEXTS = ["mug", "plate", "lamp", "mug"]
PRODUCT_TEXTS = ["red mug", "blue plate", "green lamp shade", "steel pot with lid"]
NUMBERS = torch.tensor([[0, 0], [1, 2], [2, 3], [0, 4]])
ROLES = torch.tensor([1, 0, -1, -1])
DEEP = {"preset": "tiny", "overrides": {"num_hidden_layers": 3}}
GRID = Grid(((1, 8), (3, 8), (1, 24), (2, 24), (3, 64)), (0.5, 1.0, 2.0, 1.0, 3.0))


def deep_model(**settings):
    """Three layers in float64, norms that do something, and states that differ."""
    model = tiny_model(**{**DEEP, **settings})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.ndim == 1 else 2 / parameter.shape[-1] ** 0.5
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
            assert "norm" not in name or parameter.ndim == 1
    return model.double()


def known():
    data = tiny_data()
    return KnownPositives(data.groups, data.judged, data.relevant)


def loss_of(name, model, **options):
    if name == "hinge":
        return ThreePartHingeLoss(model, **options), ROLES
    return MaskedRankingLoss(model, known(), 5.0, symmetric=0.3, margin=0.5, **options), NUMBERS


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", ["ranking", "hinge"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_are_those_of_the_sub_models_one_by_one(name, cached, shared):
    model = deep_model(shared=shared).train()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    inner, labels = loss_of(name, model, block_size=2, cached=cached)
    value = GridLoss(model, inner, GRID)([dict(column) for column in columns], labels)
    (2.0 * value).backward()
    found, wanted, total = gradients(model), {}, 0.0
    for (depth, dim), weight in zip(GRID.cells, GRID.weights, strict=True):
        cut = cut_biencoder(model, depth).train()
        cut.zero_grad()
        vectors = [cut(dict(column))["sentence_embedding"][:, :dim] for column in columns]
        part = weight * inner.objective(columns, labels)(vectors)
        (2.0 * part).backward()
        total += part.item()
        for key, gradient in gradients(cut).items():
            wanted[key] = wanted.get(key, 0) + gradient
    assert value.item() == pytest.approx(total, rel=1e-12)
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-8, atol=1e-10, msg=key)
    assert all(found[key].abs().sum() > 0 for key in found if "layers.0" in key or "layers.2" in key)


def test_the_ranking_loss_is_the_written_out_sum():
    model = deep_model().eval()
    features = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    encoder = model[0].model
    vectors = []
    for column in features:
        ids, mask = column["input_ids"], column["attention_mask"]
        states = encoder(ids, mask, output_hidden_states=True).hidden_states
        rows = []
        for row in range(len(ids)):
            tokens = [states[depth][row, : int(mask[row].sum())] for depth in (1, 2, 3)]
            normed = [norm_of(tokens[0], encoder), norm_of(tokens[1], encoder), tokens[2]]  # the last one is
            rows.append([part.mean(0).tolist() for part in normed])
        vectors.append(rows)
    total = 0.0
    # Queries 0 and 3 are the same; product 0 answers it, row 3's own (4) does not answer row 0.
    allowed = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]
    for (depth, dim), weight in zip(GRID.cells, GRID.weights, strict=True):
        queries, products = ([row[depth - 1][:dim] for row in rows] for rows in vectors)
        part = 0.0
        for i, query in enumerate(queries):
            scores = [5.0 * cosine_of(query, product) for product in products]
            part -= math.log(math.exp(scores[i]) / sum(math.exp(s) for j, s in enumerate(scores) if allowed[i][j]))
        total += weight * part / len(queries)
    loss = GridLoss(model, MaskedRankingLoss(model, known(), 5.0), GRID)(features, NUMBERS)
    assert loss.item() == pytest.approx(total, rel=1e-10)


def norm_of(tokens, encoder):
    norm = encoder.final_norm
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + norm.eps) * norm.weight


def cosine_of(left, right):
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


@pytest.mark.parametrize(("cached", "passes"), [(False, 1), (True, 2)])
def test_all_cells_come_from_one_forward_pass(cached, passes):
    model = tiny_model(**DEEP).train()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    rows = []
    model[0].model.layers[0].register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    loss = GridLoss(model, MaskedRankingLoss(model, cached=cached), GRID)(columns, NUMBERS)
    loss.backward()
    assert len(rows) == passes * len(columns)


def test_with_dropout_the_gradient_cache_draws_the_same():
    model = tiny_model(**DEEP, dropout=0.3).train()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    found = {}
    for cached in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        inner = MaskedRankingLoss(model, block_size=2, cached=cached)
        value = GridLoss(model, inner, GRID, sample=3)([dict(column) for column in columns], NUMBERS)
        value.backward()
        found[cached] = (value.item(), gradients(model))
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-5)
    for key, gradient in found[False][1].items():
        torch.testing.assert_close(found[True][1][key], gradient, atol=1e-5, rtol=1e-4)


def test_a_sampled_step_is_the_sum_of_its_cells():
    model = deep_model().eval()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    torch.manual_seed(7)
    drawn = GRID.sample(3)
    torch.manual_seed(7)
    sampled = GridLoss(model, MaskedRankingLoss(model), GRID, sample=3)(columns, NUMBERS)
    assert len(drawn.cells) == 3
    assert drawn.cells[-1] == (3, 64)
    assert sampled.item() == pytest.approx(GridLoss(model, MaskedRankingLoss(model), drawn)(columns, NUMBERS).item())


@pytest.mark.parametrize("cached", [False, True])
def test_wrapped_for_several_processes_it_is_the_same(cached):
    model = deep_model().train()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    inner, labels = loss_of("ranking", model, block_size=2, cached=cached)
    GridLoss(model, inner, GRID)([dict(column) for column in columns], labels).backward()
    wanted = gradients(model)
    model.zero_grad()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        loss = GridLoss(model, inner, GRID)
        loss.model = wrapped  # as the trainer does it
        loss([dict(column) for column in columns], labels).backward()
    finally:
        wrapped = loss = None
        leave_group()
    for key, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[key], rtol=1e-10, atol=1e-12)


def stock_model(kind):
    torch.manual_seed(2)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    tokenizer = tiny_model().tokenizer
    if kind == "bert":
        encoder = BertModel(BertConfig(vocab_size=len(tokenizer), **shape, hidden_dropout_prob=0.0))
    else:
        encoder = ModernBertModel(ModernBertConfig(vocab_size=len(tokenizer), pad_token_id=0, **shape))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return SentenceTransformer(modules=wrap_encoder(encoder, tokenizer, "mean", 16)).eval()


@pytest.mark.parametrize("kind", ["rexbert", "unnormed", "bert", "modernbert"])
def test_each_layer_is_the_model_cut_there(kind):
    model = stock_model(kind) if kind in ("bert", "modernbert") else deep_model().float().eval()
    if kind == "unnormed":
        model[0].model.config.norm_intermediate = False
    texts = [*TEXTS, *QUERIES, "a much longer text about steel pots and lamps"]
    found = encode_grid(model, texts, "document", [3, 1], batch_size=3)
    for place, depth in enumerate((1, 3)):
        cut = cut_biencoder(model, depth, 8)
        np.testing.assert_allclose(unit(found[:, place, :8]), unit(cut.encode_document(texts)), atol=1e-5)
        assert cut.get_embedding_dimension() == 8
    assert np.abs(unit(found[:, 0]) - unit(found[:, 1])).max() > 0.05
    assert not model[0].model.config.output_hidden_states


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_many_vectors_lie_in_a_file(monkeypatch):
    model = deep_model().float().eval()
    held = encode_grid(model, TEXTS, "document", [1, 3], batch_size=3)
    monkeypatch.setattr(grid_encoder, "IN_MEMORY", held.nbytes - 1)
    mapped = encode_grid(model, TEXTS, "document", [1, 3], batch_size=3)
    assert isinstance(mapped, np.memmap)
    assert not isinstance(held, np.memmap)
    np.testing.assert_array_equal(mapped, held)


def test_prompts_are_put_first():
    model = deep_model().float()
    model.prompts = {"query": "search: ", "document": ""}
    found = encode_grid(model, ["mug"], "query", [3])[:, 0]
    np.testing.assert_allclose(unit(found), model.encode_query(["mug"]), atol=1e-5)
    assert np.abs(unit(found) - model.encode_document(["mug"])).max() > 1e-3


def test_the_peer_trains_with_every_dimension():
    model = tiny_model(**DEEP).train()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    loss = stock_grid_loss(model, GRID, 20.0)
    assert list(loss.loss.matryoshka_dims) == [64, 24, 8]
    loss(columns, NUMBERS).backward()
    assert model[0].model.layers[2].mlp.Wi.weight.grad.abs().sum() > 0


def test_what_is_noted_of_the_peer_is_what_it_may_draw(monkeypatch):
    """Its layers are all of them, its dimensions those of the cells: each cell that a checkpoint names is trained."""
    model, asked = tiny_model(**DEEP).train(), []
    settings = GridSettings(cells=[[1, 8], [2, 64], [3, 64]], way="matryoshka2d")
    loss = stock_grid_loss(model, fine_tuning_grid(settings, model), 20.0)
    draw = random.sample
    monkeypatch.setattr(random, "sample", lambda among, count: asked.append(tuple(among)) or draw(among, count))
    loss(features_of(model, QUERY_TEXTS, PRODUCT_TEXTS), NUMBERS)
    # One of two dimensions; one of the embeddings and the layers but the last, which is in every step.
    assert set(asked) == {(0, 1), (0, 1, 2)}
    assert trained_cells(model) == [(1, 8), (2, 64), (3, 64)]
    assert list(loss.loss.matryoshka_dims) == [64, 8]


@pytest.mark.parametrize("kind", ["dssm", "dense"])
def test_other_modules_are_refused(kind):
    model = tiny_model(preset="dssm") if kind == "dssm" else tiny_model()
    if kind == "dense":
        model = SentenceTransformer(modules=[model[0], Pooling(64), Dense(64, 8)])
    with pytest.raises(ValueError, match="a grid needs a transformer with pooling and nothing behind it"):
        GridSettings(layers=[1]).grid(model)
    with pytest.raises(TypeError, match="a grid needs a SentenceTransformer"):
        GridEncoder(torch.nn.Identity(), [1])({})


def test_cells_follow_from_settings_or_from_the_base(caplog):
    model, stock = tiny_model(**DEEP), stock_model("bert")
    caplog.clear()
    assert GridSettings(layers=[1, 3]).grid(model).cells == ((1, 64), (3, 64))
    assert GridSettings(dims=[8, 64]).grid(model).cells == ((3, 8), (3, 64))
    assert GridSettings(cells=[[3, 64], [1, 8]], weights=[1, 2]).grid(model).weights == (2.0, 1.0)
    with pytest.raises(ValueError, match=r"not trained over a grid: name matryoshka\.layers"):
        GridSettings().grid(model)
    note_cells(model, GRID)
    assert not caplog.records
    assert GridSettings().grid(model).cells == GRID.cells
    assert trained_cells(model) == list(GRID.cells)
    note_cells(model, make_grid([(2, 30), (3, 64)], None, (3, 64)))
    assert "2 layers x 30 dimensions was not trained before; the nearest that was is 2 x 24" in caplog.text
    note_cells(stock, make_grid([(1, 8), (3, 16)], None, (3, 16)))
    assert trained_cells(stock) == [(1, 8), (3, 16)]
    caplog.clear()
    assert trained_cells(cut_biencoder(stock, 1, 8)) == []
    assert not caplog.records
    cut_biencoder(stock, 2, 14)
    assert "2 layers x 14 dimensions is no cell that was trained; the nearest one is 3 x 16" in caplog.text
    assert trained_cells(stock) == [(1, 8), (3, 16)]


def test_cells_of_pre_training_are_told_from_those_of_fine_tuning(caplog):
    """A plain fine-tuning leaves the base's grid behind: its cells are no longer what was trained last."""
    for model in (tiny_model(**DEEP), stock_model("bert")):
        width = model.get_embedding_dimension()
        grid = make_grid([(1, 8), (3, width)], None, (3, width))
        note_cells(model, grid)
        assert fine_tuning_grid(None, model) is None
        caplog.clear()
        loggers = [logging.getLogger(f"rexbert_hf.{name}") for name in ("models.encoder_rexbert", "retrieval")]
        for logger in loggers:
            logger.addHandler(caplog.handler)
        try:
            assert GridSettings().grid(model).cells == grid.cells  # a chooser may look at them
            cut = cut_biencoder(model, 1, 8)
            assert "1 layers x 8 dimensions was trained in pre-training, not in fine-tuning" in caplog.text
            caplog.clear()
            assert trained_cells(cut) == []
            assert fine_tuning_grid(GridSettings(), model).cells == grid.cells
            cut_biencoder(model, 1, 8)
            assert not caplog.records
        finally:
            for logger in loggers:
                logger.removeHandler(caplog.handler)


def test_a_grid_without_the_whole_model_is_not_fine_tuned():
    with pytest.raises(ValueError, match="the whole model, 3 layers x 64 dimensions, is no cell of the grid"):
        fine_tuning_grid(GridSettings(layers=[1, 2]), tiny_model(**DEEP))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [4]}, "cell of 4 layers x 64 dimensions: the model has 3 layers and 64 dimensions"),
        ({"dims": [8, 65]}, "cell of 3 layers x 65 dimensions"),
        ({"layers": [1, 1]}, "different cells"),
        ({"layers": [1, 3], "weights": [1.0]}, "1 matryoshka.weights for 2 cells"),
        ({"cells": [[1, 8]], "dims": [8]}, "cells stand in place of layers and dims"),
        ({"cells": [[1, 8, 9]]}, "are pairs"),
        ({"sample": -1}, "sample=-1 cells in a step"),
        ({"sample": 1}, "matryoshka: sample=1 cells in a step: 2 or more"),
        ({"layers": [1, 3], "weights": [1.0, -2.0]}, "finite and not negative"),
    ],
)
def test_grids_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GridSettings(**settings).grid(tiny_model(**DEEP))
