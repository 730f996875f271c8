"""Masked accuracy of the cells of a grid is that of the sub-models, one by one."""

from __future__ import annotations

import pytest
import torch
from training_cases import make_model, make_store, make_tokenizer

from rexbert_hf.training import evaluate_masked
from rexbert_hf.training.cell_accuracy import evaluate_cells

OPTIONS = {"batch_tokens": 256, "seq_length": 32, "max_tokens": 900}


@pytest.fixture(scope="module")
def store():
    return make_store(5, documents=60)


@pytest.fixture(scope="module")
def model():
    """Weights so wide that cells guess differently, and a bias that makes some guesses right."""
    found = make_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 / parameter.shape[-1] ** 0.5)
        found.decoder.bias[10:30] += 4.0
    return found


def test_each_cell_is_its_sub_model(model, store):
    depth, width = model.config.num_hidden_layers, model.config.hidden_size
    cells = [(layers, dim) for layers in (1, depth) for dim in (4, width)]
    model.train()
    found = evaluate_cells(model, store, make_tokenizer(), cells, **OPTIONS)
    assert model.training
    for layers, dim in cells:
        alone = evaluate_masked(model.submodel(layers, dim), store, make_tokenizer(), **OPTIONS)
        assert found[layers, dim] == pytest.approx(alone["accuracy"], abs=1e-9)
    assert len(set(found.values())) > 1
    assert max(found.values()) > 0


def test_several_stores_count_by_their_tokens(model, store):
    cells, other, tokenizer = [(1, 4)], make_store(6, documents=20), make_tokenizer()
    alone = [evaluate_masked(model.submodel(1, 4), part, tokenizer, **OPTIONS) for part in (store, other)]
    right = sum(part["accuracy"] * part["masked_tokens"] for part in alone)
    count = sum(part["masked_tokens"] for part in alone)
    found = evaluate_cells(model, [store, other], tokenizer, cells, **OPTIONS)
    assert found[1, 4] == pytest.approx(right / count, abs=1e-9)


def test_a_cell_that_the_model_lacks(model, store):
    with pytest.raises(ValueError, match=f"cell of {model.config.num_hidden_layers + 1} layers x 4 dimensions"):
        evaluate_cells(model, store, make_tokenizer(), [(model.config.num_hidden_layers + 1, 4)])
