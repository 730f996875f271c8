"""Functions that may be compiled: the compiled ones give what the plain ones give, and are the ones that run."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM, attention_rexbert, fused_rexbert, losses_rexbert
from rexbert_hf.models.attention_rexbert import rotate
from rexbert_hf.models.fused_rexbert import fusable, fuse
from rexbert_hf.models.layout_rexbert import Layout
from rexbert_hf.training.compiling import compile_layers


@pytest.fixture(autouse=True)
def _plain_again():
    yield
    fuse(False)


def test_only_what_was_asked_for_is_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append((function, options)) or function)
    rotate(torch.ones(2, 3, 4), torch.ones(2, 2), torch.ones(2, 2))
    assert compiled == []
    names = fuse()
    assert set(names) >= {"rotate", "softmax_parts", "sum_and_norm"}
    assert len(compiled) == len(names)
    assert all(options == {"dynamic": True, "backend": "inductor"} for _, options in compiled)


def test_the_compiled_function_runs_until_it_is_undone(monkeypatch):
    monkeypatch.setattr(fused_rexbert, "_FUSABLE", {})
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda x: -function(x))

    @fusable
    def doubled(x):
        return 2 * x

    assert doubled(3) == 6
    fuse()
    assert doubled(3) == -6
    fuse(False)
    assert doubled(3) == 6


def test_fused_functions_run_in_a_model_and_give_its_gradients(monkeypatch):
    """Eager attention rotates as every accelerator does, and a small vocabulary is one product there and here."""
    torch.manual_seed(0)
    config = RexBertConfig.from_size(
        "micro", vocab_size=64, num_hidden_layers=2, pad_token_id=0, attn_implementation="eager"
    )
    model, labels = RexBertForMaskedLM(config), torch.tensor([[-100, 7, 9, -100, 11, 12]])
    found = []
    for fused in (False, True):
        fuse(fused, backend="aot_eager")
        calls = []
        for name, function in fused_rexbert._COMPILED.items():
            counted = lambda *args, key=name, plain=function, seen=calls: seen.append(key) or plain(*args)  # noqa: E731
            monkeypatch.setitem(fused_rexbert._COMPILED, name, counted)
        model.zero_grad()
        loss = model(input_ids=torch.tensor([[5, 6, 7, 8, 9, 10]]), labels=labels).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
        assert {"rotate", "softmax_parts"} <= set(calls) if fused else not calls
        assert calls.count("sum_and_norm") == (3 if fused else 0)  # before each MLP, and before the second attention
    for plain, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_sum_and_norm_has_the_gradients_of_its_parts(backend, bias):
    torch.manual_seed(0)
    fuse(backend is not None, backend=backend or "")
    norm = torch.nn.LayerNorm(6, eps=1e-3, bias=bias, dtype=torch.float64)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    hidden, added = (torch.randn(5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, offset = norm.weight, norm.bias

    def both(hidden, added, weight):
        return fused_rexbert.sum_and_norm(hidden, added, weight, offset, norm.eps, torch.float64)

    expected = hidden + added
    torch.compiler.reset()
    with torch._functorch.config.patch(donated_buffer=False):  # gradcheck goes back more than once
        torch.testing.assert_close(both(hidden, added, weight), (expected, norm(expected)))
        assert torch.autograd.gradcheck(both, (hidden, added, weight))


def flat(lengths):
    ids = torch.arange(sum(lengths))[None] % 59 + 5
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": ids, "position_ids": positions, "labels": ids.where(ids % 3 == 0, -100)}


def layers_of(**options):
    torch.manual_seed(0)
    config = RexBertConfig.from_size("micro", vocab_size=64, num_hidden_layers=3, pad_token_id=0, **options)
    return RexBertForMaskedLM(config)


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_what_a_hook_of_a_layer_changes_reaches_fused_norms(before):
    model, batch = layers_of().eval(), flat([9, 4])
    change = torch.randn(model.config.hidden_size)
    if before:
        model.model.layers[1].register_forward_pre_hook(lambda _, inputs: (inputs[0] + change, *inputs[1:]))
    else:
        # A pair, as a layer has always returned.
        model.model.layers[0].register_forward_hook(lambda _, inputs, out: (out[0] + change, out[1]))
    found = []
    for fused in (False, True):
        fuse(fused, backend="eager")
        with torch.no_grad():
            found.append(model(**batch).loss)
    torch.testing.assert_close(found[1], found[0])


def test_a_checkpoint_holds_no_norm_of_the_layer_before(monkeypatch):
    model, batch, given = layers_of().train(), flat([9, 4]), []
    kind = type(model.model.layers[0])
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", lambda *args, **options: given.append(options) or plain(*args, **options))
    fuse(backend="eager")
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    assert len(given) >= 3
    assert not any({"normed", "following"} & set(options) for options in given)


def test_a_double_precision_model_is_fused_under_autocast_as_it_runs_plain():
    model, batch, found = layers_of(attn_implementation="eager").double(), flat([9, 4]), []
    for fused in (False, True):
        fuse(fused, backend="eager")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(model(**batch).loss.detach())
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("checkpointing", [None, True, False], ids=["kept", "reentrant", "not_reentrant"])
@pytest.mark.parametrize("states", [None, [1]])
def test_fused_norms_in_bfloat16_give_the_gradients_of_plain_ones(checkpointing, states):
    """Bit for bit: without a compiler behind it, the fused sum rounds where autocast does."""
    model, batch, found = layers_of(), flat([9, 4, 1]), []
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.train()
    for fused in (False, True):
        fuse(fused, backend="eager")
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, output_hidden_states=states).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    assert all(torch.equal(mine, plain) for plain, mine in zip(*found, strict=True))


def test_a_norm_that_is_more_than_a_norm_is_called_as_it_is():
    model, seen = layers_of(), []
    model.model.layers[1].attn_norm.register_forward_hook(lambda *_: seen.append("attention"))
    model.model.layers[2].mlp_norm = torch.nn.Identity()
    fuse(backend="eager")
    model(**flat([5, 3])).loss.backward()
    assert seen == ["attention"]


def test_one_compilation_serves_batches_of_every_size():
    torch.compiler.reset()
    counters["stats"].clear()
    model, graphs = layers_of(attn_implementation="eager"), []
    fuse(backend="aot_eager")
    for lengths in ([9, 4], [30], [5, 5, 7, 2], [12, 1], [64, 31]):
        model(**flat(lengths)).loss.backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [graphs[0]] * len(graphs)
    assert not counters["graph_break"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_accelerators_fuse_and_cpus_do_not(monkeypatch, device):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = RexBertForMaskedLM(RexBertConfig.from_size("micro", vocab_size=32, num_hidden_layers=1, pad_token_id=0))
    assert compile_layers(model, torch.device(device)) is True
    assert bool(fused_rexbert._COMPILED) is (device == "meta")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_softmax_parts_as_written_out(dtype, bias):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 11, generator=generator).to(dtype)
    offset = torch.randn(11, generator=generator) if bias else None
    labels = torch.tensor([3, -100, 0, 10, 7])
    whole = logits.double() + (offset.double() if bias else 0)
    chosen = whole.gather(1, labels.clamp_min(0)[:, None])
    others = logits.scatter(1, labels.clamp_min(0)[:, None], -torch.inf)
    found = losses_rexbert.softmax_parts(others.clone(), offset, chosen[:, 0].float(), True)
    assert found[0].dtype == dtype
    total = found[1] + found[2].exp()
    softmax = found[0].double().scatter(1, labels.clamp_min(0)[:, None], found[2].exp().double()[:, None])
    softmax = softmax / total[:, None]
    torch.testing.assert_close(softmax, whole.softmax(1), atol=2e-3 if dtype == torch.bfloat16 else 1e-6, rtol=1e-2)
    losses = (total.log() - found[2]).double()
    expected = torch.nn.functional.cross_entropy(whole, labels.clamp_min(0), reduction="none")
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[2] > found[3], whole.argmax(1) == labels.clamp_min(0))
    assert torch.equal(found[4], (whole >= chosen).sum(1) - 1)
    assert losses_rexbert.softmax_parts(others.clone(), offset, chosen[:, 0].float(), False)[4] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_softmax_parts_write_over_no_argument(dtype):
    """A compiler for GPUs copies them there from a buffer of the same size: two passes more, and its memory."""
    logits, own = torch.randn(5, 11).to(dtype), torch.randn(5)
    given, bias = logits.clone(), torch.randn(11)
    expected = losses_rexbert.softmax_parts(logits.clone(), bias, own, True)
    fuse(backend="aot_eager")
    found = losses_rexbert.softmax_parts(given, bias, own, True)
    assert torch.equal(given, logits)
    assert all(torch.equal(mine, plain) for mine, plain in zip(found, expected, strict=True))


@pytest.mark.parametrize("path", ["varlen", "dense", "eager", "grouped"])
def test_the_way_back_through_the_kernels_inputs_fills_no_zeros(path, monkeypatch):
    """The gradient of queries, keys and values is put together once, and is that of indexing, bit for bit."""
    flat = Layout(torch.arange(6), (1, 6), torch.tensor([0, 4, 6], dtype=torch.int32), 4, [(1, 4), (1, 2)])
    layout = Layout(torch.arange(3).repeat(2), (2, 3)) if path == "dense" else flat
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", lambda q, k, v, *args, **options: (q * k + v,))
    rest = (layout, 2, "sdpa", 0.0, False) if path == "varlen" else (layout, 2, 0.0)
    attention = getattr(attention_rexbert, f"_{path}")
    qkv, (cos, sin) = torch.randn(6, 3, 2, 8), torch.randn(2, 6, 4)

    def indexed(given, cos, sin):
        pair = attention_rexbert.rotate(given[:, :2], cos, sin)
        return pair[:, 0], pair[:, 1], given[:, 2]

    found, sizes = [], []
    for rotated in (indexed, attention_rexbert._rotated):
        monkeypatch.setattr(attention_rexbert, "_rotated", rotated)
        given = qkv.clone().requires_grad_()
        out = attention(given, cos, sin, *rest)
        out = out[0] if path == "eager" else out
        with Zeros() as zeros:
            out.square().sum().backward()
        found.append((out.detach(), given.grad))
        sizes.append(zeros.sizes)
    assert qkv.numel() in sizes[0]
    assert qkv.numel() not in sizes[1]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


class Zeros(TorchDispatchMode):
    """Notes how many numbers each tensor of zeros has that the way back through an index makes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.slice_backward.default, torch.ops.aten.select_backward.default):
            self.sizes.append(out.numel())
        return out
