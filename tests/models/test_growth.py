"""Growing a bigger model: hand-made tensors, and every parameter of a grown model."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import build, tiny_config

from rexbert_hf import RexBertForMaskedLM
from rexbert_hf.models.growth import grow, layer_sources, tile_index

BIG = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 40, "num_hidden_layers": 7}


def tile(matrix: list[list[float]], rows: int, columns: int) -> list[list[float]]:
    """The small matrix laid out by hand, without indexes: find the small cell under each big one."""
    height, width = len(matrix), len(matrix[0])
    top, left = (rows - height) // 2, (columns - width) // 2
    return [[matrix[(r - top) % height][(c - left) % width] for c in range(columns)] for r in range(rows)]


@pytest.mark.parametrize(
    ("small", "big", "expected"),
    [
        (3, 8, [1, 2, 0, 1, 2, 0, 1, 2]),
        (3, 4, [0, 1, 2, 0]),
        (2, 7, [0, 1, 0, 1, 0, 1, 0]),
        (4, 4, [0, 1, 2, 3]),
    ],
)
def test_one_side(small, big, expected):
    assert tile_index(small, big).tolist() == expected


def test_whole_heads():
    # Two heads of three to three heads: element tiling would start in the middle of a head.
    assert tile_index(6, 9, unit=3).tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert tile_index(6, 12, unit=3).tolist() == [3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_layers():
    assert layer_sources(22, 28) == [round(i * 22 / 28) for i in range(28)]
    assert layer_sources(4, 4) == [0, 1, 2, 3]
    assert layer_sources(2, 5) == [0, 0, 1, 1, 1]  # 1.6 rounds to a layer that is not there
    assert all(a <= b for a, b in zip(layer_sources(7, 19), layer_sources(7, 19)[1:], strict=False))


def pieces(name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
    """The parts of a parameter that are tiled each by itself."""
    count = 3 if "Wqkv" in name else 2 if ".mlp.Wi" in name else 1
    return list(tensor.chunk(count, dim=0))


def test_every_parameter():
    small = build(RexBertForMaskedLM, attention_bias=True, mlp_bias=True, norm_bias=True)
    big = grow(small, tiny_config(**BIG, attention_bias=True, mlp_bias=True, norm_bias=True))
    sources = layer_sources(4, 7)
    state, expected_state = big.state_dict(), small.state_dict()
    seen = 0
    for name, value in state.items():
        parts = name.split(".")
        if "layers" in parts:
            parts[2] = str(sources[int(parts[2])])
        old = expected_state.get(".".join(parts))
        if old is None:
            assert name.endswith(("attn_norm.weight", "attn_norm.bias")), name
            assert sources[int(name.split(".")[2])] == 0
            assert torch.equal(value, torch.full_like(value, 1.0 if name.endswith("weight") else 0.0))
            continue
        for new, part in zip(pieces(name, value), pieces(name, old), strict=True):
            # Heads are 16 wide and two of four: whole heads and single elements tile alike here.
            rows = part.tolist() if part.dim() == 2 else [[x] for x in part.tolist()]
            columns = new.shape[1] if new.dim() == 2 else 1
            wanted = tile(rows, new.shape[0], columns)
            found = new.tolist() if new.dim() == 2 else [[x] for x in new.tolist()]
            assert found == wanted, name
        seen += 1
    assert seen > 60


def test_odd_numbers_of_heads_stay_whole():
    small = build(RexBertForMaskedLM)
    big = grow(small, tiny_config(**{**BIG, "hidden_size": 48, "num_attention_heads": 3}))
    query, old = (model.model.layers[0].attn.Wqkv.weight.detach().chunk(3)[0] for model in (big, small))
    columns = tile_index(32, 48)
    assert torch.equal(query[:32], old[:, columns])
    assert torch.equal(query[32:], old[:16, columns])
    out, old_out = (model.model.layers[0].attn.Wo.weight.detach() for model in (big, small))
    # The columns of the output follow the heads, its rows the residual stream.
    assert torch.equal(out[:, :32], old_out[columns])
    assert torch.equal(out[:, 32:], old_out[columns][:, :16])


def test_a_grown_model_is_tied_runs_and_leaves_the_small_one_alone():
    small = build(RexBertForMaskedLM, dtype=torch.float64)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    big = grow(small, tiny_config(**BIG))
    assert big.dtype == torch.float64
    assert big.decoder.weight is big.get_input_embeddings().weight
    assert all(torch.equal(small.state_dict()[name], value) for name, value in before.items())
    ids = torch.tensor([[3, 4, 5]])
    loss = big(ids, labels=ids).loss
    loss.backward()
    assert math.isfinite(loss.item())


def test_the_same_size_is_a_copy():
    small = build(RexBertForMaskedLM)
    same = grow(small, tiny_config())
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        assert torch.equal(same.eval()(ids).logits, small(ids).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 16, "num_attention_heads": 1}, "hidden_size=16 is smaller than the small model's 32"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=3 is smaller"),
        ({"intermediate_size": 8}, "intermediate_size=8 is smaller"),
        ({"vocab_size": 98}, "vocab_size=98 must equal the small model's 97"),
        ({"num_attention_heads": 8}, "heads must keep their width 16, got 8: set num_attention_heads=4"),
    ],
)
def test_impossible_growth_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        grow(build(RexBertForMaskedLM), tiny_config(**{**BIG, **change}))
