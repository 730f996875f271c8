from __future__ import annotations

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode
from training_cases import make_model, make_padded_curriculum, make_trainer
from transformers import (
    BertConfig,
    DistilBertConfig,
    DistilBertForMaskedLM,
    FlaubertConfig,
    FunnelConfig,
    XLMConfig,
)

from rexbert_hf.models import RexBertConfig
from rexbert_hf.training.flops import FlopCounter, visible_pairs


@pytest.mark.parametrize("window", [None, 0, 1, 3, 64])
def test_pairs_by_counting_them(window):
    lengths = np.array([1, 2, 7, 30])
    counted = sum(
        window is None or abs(q - k) <= window for length in lengths for q in range(length) for k in range(length)
    )
    assert visible_pairs(lengths, window) == counted


def test_forward_by_hand():
    # H=4, I=6, V=10; 2 layers: per token and layer 8*16 + 6*24 = 272; 16 a pair; a prediction 2*16 + 2*40 = 112.
    counter = FlopCounter(4, 6, 10, global_layers=1, local_layers=1, window=1)
    assert counter.forward(tokens=5, global_pairs=25, local_pairs=13, predicted=2) == 5 * 2 * 272 + 16 * 38 + 2 * 112
    assert counter.step(5, 25, 13, 2) == 3 * counter.forward(5, 25, 13, 2)


def test_linear_part_equals_what_torch_counts():
    """Matrix products of the forward pass; attention is left out, its kernels differ."""
    import torch

    model = make_model(dropout=0.0)
    counter = FlopCounter.from_config(model.config)
    assert (counter.global_layers, counter.local_layers, counter.window) == (1, 1, 4)
    ids = torch.randint(5, 60, (1, 12))
    model.eval()
    with FlopCounterMode(display=False) as mode, torch.no_grad():
        model(ids)  # all 12 positions are predicted
    table = mode.get_flop_counts()["Global"]
    linear = sum(count for op, count in table.items() if str(op) in ("aten.mm", "aten.addmm"))
    assert counter.forward(tokens=12, global_pairs=0, local_pairs=0, predicted=12) == linear


def test_other_encoders_count_as_global_layers_with_a_plain_mlp():
    counter = FlopCounter.from_config(BertConfig(hidden_size=12, intermediate_size=48, num_hidden_layers=3))
    assert (counter.global_layers, counter.local_layers) == (3, 0)
    assert counter.forward(1, 0, 0, 0) == 3 * (8 * 144 + 4 * 12 * 48)


def test_a_grid_counts_each_cell_as_often_as_it_is_trained():
    plain = RexBertConfig.from_size("micro", vocab_size=100)
    grid = RexBertConfig.from_size("micro", vocab_size=100, matryoshka_layers=[3, 7], matryoshka_dims=[32, 256])
    some = RexBertConfig.from_dict({**grid.to_dict(), "matryoshka_sample": 2})
    of = {name: FlopCounter.from_config(config) for name, config in (("plain", plain), ("grid", grid), ("some", some))}

    def head(name):
        return of[name].forward(0, 0, 0, predicted=3)

    def cell(dim):
        return 3 * (2 * dim**2 + 2 * dim * 100)

    assert head("plain") == cell(256)
    assert head("grid") == 2 * cell(32) + 2 * cell(256)
    assert head("some") == pytest.approx(cell(256) + (2 * cell(32) + cell(256)) / 3)


def test_other_names_of_the_inner_width():
    """DistilBERT's own names, and XLM, which has none: four times the width."""
    for config in (
        DistilBertConfig(dim=12, hidden_dim=48, n_layers=3, n_heads=2),
        XLMConfig(emb_dim=12, n_layers=3, n_heads=2),
        FlaubertConfig(emb_dim=12, n_layers=3, n_heads=2),
    ):
        counter = FlopCounter.from_config(config)
        assert counter.forward(1, 0, 0, 0) == 3 * (8 * 144 + 4 * 12 * 48)


def test_a_shape_that_is_unknown_leaves_mfu_out(tmp_path, caplog, monkeypatch):
    assert FlopCounter.from_config(FunnelConfig()) is None
    assert "the layers of FunnelConfig cannot be counted: the log has no MFU" in caplog.text
    config = DistilBertConfig(vocab_size=64, dim=16, hidden_dim=24, n_layers=1, n_heads=2, max_position_embeddings=64)
    for known in (True, False):
        model = DistilBertForMaskedLM(config)
        if not known:
            monkeypatch.setattr("rexbert_hf.training.flops._inner_size", lambda config: None)
        trainer = make_trainer(
            tmp_path / str(known), make_padded_curriculum(steps=(2, 1)), model, measure_mfu=True, save_steps=100
        )
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert logs
        assert all(("mfu" in entry) == known for entry in logs)
        assert (trainer.state.total_flos > 0) == known
