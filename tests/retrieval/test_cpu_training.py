"""Training steps on CPU compute the same: dropout by bytes, sparse gradients, float32 attention."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout
from transformers import BertConfig, BertModel

from rexbert_hf.retrieval.training import cpu_training
from rexbert_hf.retrieval.training.cpu_training import (
    ByteDropout,
    prepare_for_cpu,
    use_byte_dropout,
    use_float32_attention,
    use_sparse_gradients,
)


def test_dropped_share_scale_and_gradient() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(300, 401, dtype=torch.float64, requires_grad=True)
    out = ByteDropout(0.1)(inputs)
    out.sum().backward()
    dropped, scale = 26 / 256, 256 / 230
    kept = out != 0
    share = 1 - kept.double().mean().item()
    # Five standard deviations of a binomial of 120,300 draws are .0044.
    assert share == pytest.approx(dropped, abs=0.0044)
    torch.testing.assert_close(out, torch.where(kept, inputs * scale, 0.0))
    torch.testing.assert_close(inputs.grad, kept.double() * scale)
    # Neighbours come from one draw of 64 bits: they have to drop independently of each other.
    together = (~kept[:, :-1] & ~kept[:, 1:]).double().mean().item()
    assert together == pytest.approx(dropped**2, abs=0.003)
    assert (~kept).double().mean(dim=0).max() < 0.25


def test_dropout_repeats_with_the_generator_and_keeps_the_dtype() -> None:
    layer, inputs = ByteDropout(0.3), torch.ones(5, 7, dtype=torch.bfloat16)
    state = torch.get_rng_state()
    first = layer(inputs)
    torch.set_rng_state(state)
    assert torch.equal(layer(inputs), first)
    assert first.dtype == torch.bfloat16
    assert not torch.equal(layer(inputs), first)


@pytest.mark.parametrize("rate", [0.0, 0.001, 1.0])
def test_a_rate_without_a_byte_is_torch_s_dropout(rate: float) -> None:
    inputs = torch.randn(64, 64)
    torch.manual_seed(1)
    ours = ByteDropout(rate)(inputs)
    torch.manual_seed(1)
    assert torch.equal(ours, dropout(inputs, rate))


def test_evaluation_drops_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9))
    assert use_byte_dropout(model) == 1
    assert use_byte_dropout(model) == 0
    inputs = torch.randn(3, 4)
    assert torch.equal(model.eval()(inputs), model[0](inputs))


def test_sparse_gradients_are_the_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_training, "LARGE", 400)
    torch.manual_seed(0)
    dense = nn.ModuleList([nn.Embedding(50, 8, padding_idx=0), nn.Embedding(3, 8)]).double()
    sparse = copy.deepcopy(dense)
    assert use_sparse_gradients(sparse) == 1, "the small one stays"
    ids = torch.randint(0, 50, (4, 6, 9))
    ids[:, :, -2:] = 0
    for table in (dense, sparse):
        for step in range(2):  # gradients of two steps add up, each of two blocks
            sum((table[0](ids[2 * step + i]).sin() * (i + 1)).sum() for i in range(2)).backward()
    assert not sparse[0].weight.grad.is_sparse
    torch.testing.assert_close(sparse[0].weight.grad, dense[0].weight.grad)
    assert not sparse[0].weight.grad[0].any(), "padding has no gradient"
    assert nn.utils.clip_grad_norm_(sparse.parameters(), 1.0) > 1


def test_several_ranks_keep_dense_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_training, "LARGE", 1)
    model = nn.Sequential(nn.Embedding(50, 8), nn.Dropout(0.1))
    prepare_for_cpu(model, bf16=True, ranks=2)
    assert not model[0].sparse
    assert type(model[1]) is ByteDropout
    prepare_for_cpu(model, bf16=True)
    assert model[0].sparse


def test_attention_runs_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    exact, ours = BertModel(config), BertModel(config)
    ours.load_state_dict(exact.state_dict())
    assert use_float32_attention(ours) == 1
    ids, mask = torch.randint(0, 64, (3, 10)), torch.ones(3, 10, dtype=torch.long)
    mask[0, 6:] = 0
    expected = exact(ids, mask).last_hidden_state[mask.bool()]
    # Without autocast it is the stock kernel itself.
    torch.testing.assert_close(ours(ids, mask).last_hidden_state[mask.bool()], expected)
    seen = []
    inner = cpu_training.sdpa_attention_forward

    def spy(module: nn.Module, query: torch.Tensor, *rest: object, **named: object) -> object:
        seen.append(query.dtype)
        return inner(module, query, *rest, **named)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(cpu_training, "sdpa_attention_forward", spy)
        found = ours(ids, mask).last_hidden_state[mask.bool()]
    assert seen == [torch.float32] * 2
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)
