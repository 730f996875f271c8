from __future__ import annotations

import copy

import pytest
import torch

from rexbert_hf.training.optimizer import BLOCK, StableAdamW, parameter_groups


def transcription(weight, grads, lr, betas, eps, weight_decay, decouple_lr):
    """StableAdamW step by step, from the paper's algorithm with bias-corrected moments."""
    m, v = torch.zeros_like(weight), torch.zeros_like(weight)
    weight = weight.clone()
    clipped = 0
    for t, g in enumerate(grads, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        rms = (g * g / torch.maximum(v_hat, torch.tensor(eps * eps, dtype=g.dtype))).mean().sqrt()
        rate = lr / max(1.0, rms.item())
        clipped += rms.item() > 1
        weight -= rate * (weight_decay / lr if decouple_lr else weight_decay) * weight
        weight -= rate * m_hat / (v_hat.sqrt() + eps)
    return weight, clipped


def run(weight, grads, **options):
    param = torch.nn.Parameter(weight.clone())
    optimizer = StableAdamW([param], **options)
    for g in grads:
        param.grad = g.clone()
        optimizer.step()
    return param.detach(), optimizer


OPTIONS = {"lr": 0.02, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("decouple_lr", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (BLOCK // 100, 211)])
def test_equals_the_transcription_in_float64(foreach, decouple_lr, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    grads = [torch.randn(shape, dtype=torch.float64) * scale for scale in (0.1, 0.1, 5.0, 0.01, 1.0)]
    expected, clipped = transcription(weight, grads, decouple_lr=decouple_lr, **OPTIONS)
    got, _ = run(weight, grads, foreach=foreach, decouple_lr=decouple_lr, **OPTIONS)
    assert 0 < clipped < len(grads), "the gradients must exercise both branches of the clipping"
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("foreach", [True, False])
def test_is_adamw_while_the_clipping_is_inactive(foreach):
    torch.manual_seed(1)
    weight = torch.randn(40, 3, dtype=torch.float64)
    sign = torch.randn_like(weight).sign()
    grads = [sign * 0.9**t for t in range(6)]  # a falling gradient: g^2 <= v, hence RMS <= 1
    reference = torch.nn.Parameter(weight.clone())
    adamw = torch.optim.AdamW([reference], **OPTIONS)
    for g in grads:
        reference.grad = g.clone()
        adamw.step()
    got, _ = run(weight, grads, foreach=foreach, **OPTIONS)
    torch.testing.assert_close(got, reference.detach(), rtol=1e-10, atol=1e-12)


def test_clipping_is_by_tensor():
    """A spike in one tensor slows that tensor down and leaves the other alone."""
    grads = [torch.ones(4, dtype=torch.float64)] * 3
    spiked = [*grads[:2], grads[2] * 1000]
    calm, wild = (torch.nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2))
    optimizer = StableAdamW([calm, wild], lr=0.1)
    for a, b in zip(grads, spiked, strict=True):
        calm.grad, wild.grad = a.clone(), b.clone()
        optimizer.step()
    alone, _ = run(torch.zeros(4, dtype=torch.float64), grads, lr=0.1)
    assert torch.equal(calm.detach(), alone)
    expected, _ = transcription(torch.zeros(4, dtype=torch.float64), spiked, 0.1, (0.9, 0.98), 1e-6, 0.0, False)
    torch.testing.assert_close(wild.detach(), expected)


@pytest.mark.parametrize("foreach", [True, False])
def test_memory_order_of_weight_and_gradient_does_not_matter(foreach):
    torch.manual_seed(2)
    weight, grads = torch.randn(6, 4, dtype=torch.float64), [torch.randn(6, 4, dtype=torch.float64) for _ in range(3)]
    expected, _ = run(weight, grads, foreach=foreach, **OPTIONS)
    turned, _ = run(weight, [g.t().contiguous().t() for g in grads], foreach=foreach, **OPTIONS)
    param = torch.nn.Parameter(weight.t().contiguous().t())
    optimizer = StableAdamW([param], foreach=foreach, **OPTIONS)
    for g in grads:
        param.grad = g.clone()
        optimizer.step()
    torch.testing.assert_close(turned, expected)
    torch.testing.assert_close(param.detach(), expected)


@pytest.mark.parametrize("foreach", [True, False])
def test_bf16_weights_follow_an_fp32_copy(foreach):
    """Steps far below bf16's resolution add up, as they would not if the weight itself were updated."""
    weight = torch.ones(64, dtype=torch.bfloat16)
    grads = [torch.full((64,), 0.5, dtype=torch.bfloat16) for _ in range(100)]
    got, _ = run(weight, grads, lr=1e-4, foreach=foreach)
    exact, _ = run(weight.float(), [g.float() for g in grads], lr=1e-4, foreach=foreach)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, exact.bfloat16())
    assert got[0] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("foreach", [True, False])
def test_state_dict_continues_bit_for_bit(dtype, foreach, tmp_path):
    torch.manual_seed(3)
    weight, grads = torch.randn(9, 5).to(dtype), [torch.randn(9, 5).to(dtype) for _ in range(6)]
    expected, _ = run(weight, grads, foreach=foreach, **OPTIONS)
    half, optimizer = run(weight, grads[:3], foreach=foreach, **OPTIONS)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    param = torch.nn.Parameter(half.clone())
    resumed = StableAdamW([param], foreach=foreach, **OPTIONS)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for g in grads[3:]:
        param.grad = g.clone()
        resumed.step()
    assert torch.equal(param.detach(), expected)


@pytest.mark.parametrize("foreach", [True, False])
def test_a_group_decays_relative_to_its_own_peak(foreach):
    """The share that a weight loses a step at its peak rate is the weight decay, whatever that rate is."""
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(4)]
    groups = [{"params": [weights[0]], "lr": 1e-2}, {"params": [weights[1]]}]
    groups.append({"params": [weights[2]], "lr": 1e-2, "max_lr": 2e-2})
    optimizer = StableAdamW(groups, lr=1e-3, weight_decay=0.1, decouple_lr=True, foreach=foreach)
    optimizer.add_param_group({"params": [weights[3]], "lr": 1e-4})
    for weight in weights:
        weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert [weight.detach()[0, 0].item() for weight in weights] == pytest.approx([0.9, 0.9, 0.95, 0.9])


def test_a_group_that_begins_at_zero_decays_once_its_rate_is_raised():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = StableAdamW([{"params": [weight], "lr": 0.0}], lr=1e-2, weight_decay=0.1, decouple_lr=True)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert weight.detach()[0, 0].item() == 1.0
    optimizer.param_groups[0]["lr"] = 1e-2
    optimizer.step()
    assert weight.detach()[0, 0].item() == pytest.approx(0.9)


def test_the_state_of_an_earlier_version_goes_on_as_it_was():
    """Its groups were saved with the optimizer's own rate as their peak."""
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = StableAdamW([{"params": [weight], "lr": 1e-2}], lr=1e-3, weight_decay=0.01, decouple_lr=True)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["max_lr"] = 1e-3
    optimizer.load_state_dict(saved)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert weight.detach()[0, 0].item() == pytest.approx(0.9)


def test_loading_does_not_share_memory_with_the_state_dict():
    _, optimizer = run(torch.ones(4, dtype=torch.bfloat16), [torch.ones(4, dtype=torch.bfloat16)], lr=0.1)
    saved = copy.deepcopy(optimizer.state_dict())
    param = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    other = StableAdamW([param], lr=0.1)
    other.load_state_dict(saved)
    param.grad = torch.ones(4, dtype=torch.bfloat16)
    other.step()
    assert torch.equal(saved["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_parameters_without_a_gradient_stay():
    with_grad, without = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = StableAdamW([with_grad, without], lr=0.1, weight_decay=0.5)
    with_grad.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(without.detach(), torch.ones(2))
    assert (with_grad.detach() < 1).all()


def test_groups_of_a_model():
    from training_cases import make_model

    model = make_model()
    decayed, plain = parameter_groups(model, 0.1)
    names = {id(param): name for name, param in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert all("norm" in names[id(p)] or names[id(p)].endswith("bias") for p in plain["params"])
    assert "model.embeddings.tok_embeddings.weight" in {names[id(p)] for p in decayed["params"]}
    every = [*decayed["params"], *plain["params"]]
    assert len(every) == len({id(p) for p in every}) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must not"),
        ({"betas": (1.0, 0.9)}, "betas must"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StableAdamW([torch.nn.Parameter(torch.ones(1))], **options)
