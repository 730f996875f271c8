"""Linear layers through oneDNN: against float64, against torch's own layer, and wherever they must stand back."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from rexbert_hf.models import (
    RexBertForMaskedLM,
    losses_rexbert,
    masked_cross_entropy,
    onednn,
    products_rexbert,
    use_onednn,
)
from rexbert_hf.models.products_rexbert import linear, project

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN here"
)


@pytest.fixture
def products(monkeypatch):
    """oneDNN as on an AMD processor, whatever this one is; the list grows by one with each product of it."""
    calls: list[tuple[int, ...]] = []
    plain = products_rexbert._product

    def counted(x, weight, bias):
        calls.append(tuple(x.shape))
        return plain(x, weight, bias)

    monkeypatch.setattr(products_rexbert, "_product", counted)
    for module in (products_rexbert, losses_rexbert, onednn):
        monkeypatch.setattr(module, "prefers_onednn", lambda: True)
    return calls


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def leaves(*tensors, dtype=torch.float32):
    return [x.detach().to(dtype, copy=True).requires_grad_() for x in tensors]


@pytest.fixture
def weights(products, monkeypatch):
    """Shapes and strides of the weights that oneDNN was given."""
    given: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    plain = torch.ops.mkldnn._linear_pointwise

    def noted(x, weight, *rest):
        given.append((tuple(weight.shape), weight.stride()))
        return plain(x, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", noted)
    return given


def assert_packed(weights):
    assert weights
    for (rows, columns), strides in weights:
        assert strides in ((columns, 1), (1, rows))


@pytest.mark.parametrize("turned", [False, True])
def test_a_part_of_a_weight_reaches_onednn_without_gaps(weights, turned):
    """It would compute them by its reference code, a thousand times slower."""
    whole, x = draw(200, 200), draw(80, 100, seed=1)
    part = (whole[:100, :96].t() if turned else whole[:96, :100]).requires_grad_()
    x.requires_grad_()
    out = linear(x, part)
    torch.testing.assert_close(out, x @ part.t(), rtol=1e-5, atol=1e-4)
    grads = torch.autograd.grad(out.sum(), (x, part))
    torch.testing.assert_close(grads[0], part.sum(0).expand(80, 100), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(grads[1], x.sum(0).expand(96, 100), rtol=1e-5, atol=1e-4)
    assert len(weights) == 3
    assert_packed(weights)


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_a_grid_of_sizes_gives_onednn_no_gaps(weights, kl_weight):
    grid = {"matryoshka_layers": [1, 2], "matryoshka_dims": [64, 96, 192], "matryoshka_kl_weight": kl_weight}
    config = tiny_config(hidden_size=192, num_hidden_layers=2, **grid)
    model = RexBertForMaskedLM(config).train()
    ids = torch.randint(0, config.vocab_size, (4, 100), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    assert {64, 96} <= {size for shape, _ in weights for size in shape}
    assert_packed(weights)


@pytest.mark.parametrize("shape", [(64,), (100,), (4, 25), (2, 3, 20)])
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (70, 96), (192, 65)])
@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradients_equal_float64(products, shape, rows, columns, bias):
    plain = [draw(*shape, columns), draw(rows, columns, seed=1), *([draw(rows, seed=2)] if bias else [])]
    ours, theirs = leaves(*plain), leaves(*plain, dtype=torch.float64)
    out, expected = linear(*ours), F.linear(*theirs)
    assert products == [(*shape, columns)]
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5 * columns**0.5)
    grad = draw(*shape, rows, seed=3)
    out.backward(grad)
    expected.backward(grad.double())
    assert len(products) == 3
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-5, atol=1e-3)
        assert mine.grad.is_contiguous()


def test_an_expanded_gradient_is_taken(products):
    ours, theirs = (leaves(draw(80, 64), draw(64, 64, seed=1)) for _ in range(2))
    linear(*ours).sum().backward()
    F.linear(*theirs).sum().backward()
    assert len(products) == 3
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_only_the_gradients_asked_for_are_computed(products):
    x, weight = draw(80, 64), draw(64, 64, seed=1).requires_grad_()
    linear(x, weight).sum().backward()
    assert len(products) == 2
    assert weight.grad is not None


def test_second_derivatives_are_torchs(products):
    def penalty(multiply, x, weight):
        (first,) = torch.autograd.grad(multiply(x, weight).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), [x, weight])

    plain = draw(70, 64) / 8, draw(64, 64, seed=1) / 8
    found, expected = penalty(linear, *leaves(*plain)), penalty(F.linear, *leaves(*plain, dtype=torch.float64))
    assert products
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "lay",
    [
        lambda x: x,
        lambda x: x.t().contiguous().t(),
        lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
        lambda x: torch.cat([x, x])[len(x) :],
        lambda x: torch.cat([x.t(), x.t()])[3 : 3 + x.shape[1]].t() if len(x) else x,
    ],
    ids=["rows", "columns", "part of rows", "last rows", "part of columns"],
)
def test_matrices_lie_as_they_like(products, lay):
    x, weight = lay(draw(90, 64)), lay(draw(80, 64, seed=1))
    torch.testing.assert_close(linear(x, weight), F.linear(x.contiguous(), weight.contiguous()), rtol=1e-5, atol=1e-4)
    assert len(products) == 1


@pytest.mark.parametrize("weight", [draw(1, 64).expand(70, 64), draw(70, 128)[:, ::2]], ids=["one row", "gaps"])
def test_what_lies_otherwise_stays_torchs(products, weight):
    x = draw(90, 64)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not products


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (draw(63, 64), draw(64, 64)),
        (draw(64, 64), draw(63, 64)),
        (draw(64, 63), draw(64, 63)),
        (draw(0, 64), draw(64, 64)),
        (draw(64), draw(64, 64)),
        (draw(80, 64).double(), draw(64, 64).double()),
        (draw(80, 64).bfloat16(), draw(64, 64).bfloat16()),
    ],
    ids=["few rows", "few outputs", "few columns", "no rows", "a vector", "float64", "bfloat16"],
)
def test_small_products_and_other_types_stay_torchs(products, x, weight):
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not products


def test_shapes_are_checked_by_torch(products):
    x, weight = draw(200, 64), draw(64, 64, seed=1)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        linear(draw(200, 96), weight)
    assert torch.equal(linear(x, weight, torch.ones(1)), F.linear(x, weight, torch.ones(1)))
    assert not products


def test_who_watches_sees_torchs_operators(products):
    """Autocast, torch's switch, tracing, compilation, counters, function transforms, forward mode."""
    x, weight = draw(80, 64), draw(64, 64, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        linear(x, weight)
    torch.jit.trace(linear, (x, weight), check_trace=False)
    torch.compile(linear, backend="eager", fullgraph=True)(x, weight)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * 80 * 64 * 64
    stacked = torch.vmap(linear, in_dims=(0, None))(torch.stack([x, x]), weight)
    torch.testing.assert_close(stacked[0], F.linear(x, weight), rtol=1e-5, atol=1e-5)
    _, tangent = torch.func.jvp(lambda y: linear(y, weight), (x,), (x,))
    torch.testing.assert_close(tangent, F.linear(x, weight), rtol=1e-5, atol=1e-5)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        assert torch.autograd.forward_ad.unpack_dual(linear(dual, weight)).tangent is not None
    assert not products


def test_a_layer_that_became_something_else_is_called(products):
    layer, x = nn.Linear(64, 64), draw(80, 64)
    project(layer, x)
    assert len(products) == 1
    seen = []
    handle = layer.register_forward_hook(lambda *_: seen.append(1))
    project(layer, x)
    handle.remove()
    assert seen == [1]
    assert project(nn.Identity(), x) is x
    assert len(products) == 1


@pytest.mark.parametrize(
    ("family", "capability", "there"),
    [(26, "AVX512", True), (27, "AVX512", True), (26, "AVX2", False), (25, "AVX512", False), (0, "AVX512", False)],
)
def test_only_where_it_is_known_to_gain(monkeypatch, family, capability, there):
    monkeypatch.setattr(products_rexbert, "_amd_family", lambda: family)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products_rexbert.prefers_onednn.__wrapped__() is there
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert products_rexbert.prefers_onednn.__wrapped__() is False


AMD = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n"
INTEL = "vendor_id\t: GenuineIntel\ncpu family\t: 6\n"


@pytest.mark.parametrize(
    ("told", "family"),
    [
        (AMD, 26),
        (AMD.replace("26", "25"), 25),
        (INTEL, 0),
        (INTEL.replace("6", "30"), 0),
        ("vendor_id\t: AuthenticAMD\n", 0),
        ("processor: 0\n", 0),
        ("", 0),
    ],
)
def test_the_family_is_read_from_linux(tmp_path, told, family):
    (tmp_path / "cpuinfo").write_text(told, encoding="utf-8")
    assert products_rexbert._amd_family(tmp_path / "cpuinfo") == family


@pytest.mark.parametrize(
    ("told", "family"),
    [
        ("AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD", 26),
        ("Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", 0),
        ("arm", 0),
        ("", 0),
    ],
)
def test_elsewhere_the_family_is_read_from_the_processors_name(tmp_path, monkeypatch, told, family):
    monkeypatch.setattr("platform.processor", lambda: told)
    assert products_rexbert._amd_family(tmp_path / "none") == family


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [64, 150])
def test_masked_cross_entropy_equals_float64(products, monkeypatch, bias, rows):
    monkeypatch.setattr(losses_rexbert, "CPU_ROWS", 80)
    monkeypatch.setattr(losses_rexbert, "FAST_COLUMNS", 128)
    plain = [draw(rows, 64) / 4, draw(300, 64, seed=1), *([draw(300, seed=2)] if bias else [])]
    labels = torch.randint(0, 300, (rows,), generator=torch.Generator().manual_seed(3))
    labels[5] = -100
    ours, theirs = leaves(*plain), leaves(*plain, dtype=torch.float64)
    loss, correct, ranks = masked_cross_entropy(*ours, *([] if bias else [None]), labels, return_ranks=True)
    logits = F.linear(*theirs)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    held = labels >= 0
    assert int(correct) == int((logits.argmax(1) == labels)[held].sum())
    own = logits.gather(1, labels.clamp_min(0)[:, None])
    assert torch.equal(ranks[held], (logits > own).sum(1)[held])
    loss.backward()
    expected.backward()
    assert products
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_a_model_gives_what_it_gave(products, monkeypatch):
    from rexbert_hf.models import RexBertForMaskedLM

    torch.manual_seed(0)
    config = tiny_config(hidden_size=64, intermediate_size=96, num_attention_heads=2, vocab_size=128)
    model = RexBertForMaskedLM(config).train()
    ids = torch.randint(5, 128, (3, 40))
    labels = torch.where(torch.arange(40) % 2 == 0, ids, -100)

    def step():
        model.zero_grad()
        loss = model(ids, labels=labels).loss
        loss.backward()
        return loss, {name: x.grad.clone() for name, x in model.named_parameters()}

    (loss, grads), (again, same) = step(), step()
    assert products
    assert torch.equal(loss, again)
    assert all(torch.equal(grads[name], same[name]) for name in grads)
    for module in (products_rexbert, losses_rexbert):
        monkeypatch.setattr(module, "prefers_onednn", lambda: False)
    count = len(products)
    expected, others = step()
    assert len(products) == count
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name], rtol=1e-3, atol=1e-5, msg=name)


def test_stock_encoders_are_changed_in_place(products):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    model = BertModel(config).eval()
    ids = torch.randint(0, 100, (4, 20))
    expected, text, names = model(ids).last_hidden_state, repr(model), list(model.state_dict())
    assert use_onednn(model) == 13
    assert use_onednn(model) == 0
    found = model(ids).last_hidden_state
    assert len(products) == 12  # the pooler sees four rows
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (repr(model), list(model.state_dict())) == (text, names)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    BertModel(config).load_state_dict(torch.load(io.BytesIO(stored.getvalue()), weights_only=True))


def test_rexberts_own_layers_stay_as_they_are(products):
    from rexbert_hf.models import RexBertModel

    model = nn.Sequential(RexBertModel(tiny_config()), nn.Linear(64, 64))
    assert use_onednn(model) == 1
    assert all(type(part) is not onednn.OneDnnLinear for part in model[0].modules())


def test_nothing_changes_where_nothing_is_gained(monkeypatch):
    monkeypatch.setattr(onednn, "prefers_onednn", lambda: False)
    model = nn.Sequential(nn.Linear(64, 64))
    assert use_onednn(model) == 0
    assert type(model[0]) is nn.Linear
