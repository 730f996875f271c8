"""Invariant 1: a packed document, a padded one and one alone give the same numbers, and none sees another."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_models import (
    LENGTHS,
    SHORT_LENGTHS,
    VOCABULARY,
    build,
    documents,
    flat_batch,
    padded_batch,
    split_flat,
    split_padded,
)
from transformers import ModernBertModel

from rexbert_hf import RexBertForMaskedLM, RexBertModel
from rexbert_hf.models import to_modernbert

BACKENDS = ["sdpa", "eager"]
MIXED = {"sdpa": LENGTHS, "eager": SHORT_LENGTHS}
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
ORDERS = {
    "mixed": LENGTHS,
    "short": SHORT_LENGTHS,
    "reversed": sorted(SHORT_LENGTHS, reverse=True),
    "equal": [70, 70, 70],
    "ones": [1, 1, 1],
    "single": [400],
    "long_equal": [330, 330],
}


def close(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def alone():
    """Hidden states of each document by itself, every layer, from stock ModernBERT's eager attention."""
    model = build(RexBertModel)
    with torch.no_grad():
        stock = to_modernbert(model)
    assert isinstance(stock, ModernBertModel)
    stock.set_attn_implementation("eager")
    known: dict[tuple[int, ...], list[torch.Tensor]] = {}

    def states(doc: torch.Tensor) -> list[torch.Tensor]:
        key = tuple(doc.tolist())
        if key not in known:
            with torch.no_grad():
                known[key] = [h[0] for h in stock(doc[None], output_hidden_states=True).hidden_states]
        return known[key]

    return states


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_layer_equals_the_document_alone(alone, backend, order):
    docs = documents(ORDERS[order])
    model = build(RexBertModel, attn_implementation=backend)
    expected = [alone(d) for d in docs]
    batches = {
        "flat": (flat_batch(docs), None),
        "borders": (flat_batch(docs, "borders"), None),
        "positions": (flat_batch(docs, "positions"), None),
        "right": (padded_batch(docs), "mask"),
        "left": (padded_batch(docs, "left", extra=3), "mask"),
    }
    for name, (batch, mask) in batches.items():
        with torch.no_grad():
            output = model(**batch, output_hidden_states=True)
        assert len(output.hidden_states) == 5
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        for layer, hidden in enumerate(output.hidden_states):
            parts = split_padded(hidden, batch) if mask else split_flat(hidden, docs)
            close(parts, [states[layer] for states in expected], TOLERANCE[torch.float32])
            if mask:
                padding = hidden[batch["attention_mask"] == 0]
                assert not padding.any(), f"{name}: padding positions are not zeros"


def gradients(model, batch, targets, mask=None):
    """Parameter gradients of a loss that weighs each token of each document by its own random vector."""
    model.zero_grad()
    hidden = model(**batch).last_hidden_state
    parts = hidden[0].split([len(t) for t in targets]) if mask is None else split_padded(hidden, batch)
    loss = sum((part * target).sum() for part, target in zip(parts, targets, strict=True))
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("sdpa", torch.float32), ("eager", torch.float32), ("sdpa", torch.float64)],
    ids=["sdpa", "eager", "sdpa_float64"],
)
def test_gradients_equal_those_of_documents_alone(backend, dtype):
    docs = documents(MIXED[backend])
    model = build(RexBertModel, dtype=dtype, attn_implementation=backend)
    # Stock rotates in float32 whatever the dtype, so in float64 our own model alone is the reference.
    reference = build(RexBertModel, dtype=dtype)
    if dtype == torch.float32:
        reference = to_modernbert(reference)
        reference.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(3)
    targets = [torch.randn(len(d), 32, generator=generator, dtype=dtype) for d in docs]
    reference.requires_grad_(True)
    for doc, target in zip(docs, targets, strict=True):
        (reference(doc[None]).last_hidden_state[0] * target).sum().backward()
    expected = {name: p.grad for name, p in reference.named_parameters()}
    batches = [(flat_batch(docs), None), (padded_batch(docs), 1)]
    if dtype == torch.float32:  # left padding moves the positions, and their tables are float32
        batches.append((padded_batch(docs, "left"), 1))
    for batch, mask in batches:
        found = gradients(model, batch, targets, mask)
        assert found.keys() == expected.keys()
        for name, grad in found.items():
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(
                grad, expected[name], atol=TOLERANCE[dtype] * max(scale, 1.0), rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keys", ["all", "borders", "positions"])
def test_another_document_never_changes_a_document(backend, keys):
    docs = documents(MIXED[backend])
    model = build(RexBertModel, attn_implementation=backend)
    with torch.no_grad():
        before = split_flat(model(**flat_batch(docs, keys)).last_hidden_state, docs)
        for changed in (0, 3, len(docs) - 1):
            other = [*docs[:changed], docs[changed].flip(0) % (VOCABULARY - 3) + 3, *docs[changed + 1 :]]
            after = split_flat(model(**flat_batch(other, keys)).last_hidden_state, docs)
            for i, (a, b) in enumerate(zip(before, after, strict=True)):
                assert torch.equal(a, b) == (i != changed), f"document {i} after a change of document {changed}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_content_never_leaks(backend, side):
    docs = documents([5, 70, 1, 321])
    batch = padded_batch(docs, side)
    model = build(RexBertModel, attn_implementation=backend)
    other = {**batch, "input_ids": torch.where(batch["attention_mask"] == 1, batch["input_ids"], 50)}
    assert not torch.equal(batch["input_ids"], other["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, model(**other).last_hidden_state)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("local_attention", [128, 8])
@pytest.mark.parametrize("length", [150, 700])
def test_a_local_layer_sees_the_window_and_no_further(backend, local_attention, length):
    window = local_attention // 2
    model = build(
        RexBertModel,
        num_hidden_layers=1,
        layer_types=["sliding_attention"],
        local_attention=local_attention,
        attn_implementation=backend,
    )
    (doc,) = documents([length])
    for place in (0, window, length // 2, length - 1):
        changed = doc.clone()
        changed[place] = 3 if doc[place] != 3 else 4
        with torch.no_grad():
            before, after = (model(d[None]).last_hidden_state[0] for d in (doc, changed))
        different = (before != after).any(1).nonzero().squeeze(1)
        assert different.tolist() == list(range(max(place - window, 0), min(place + window + 1, length)))


def test_all_masked_rows_and_short_rows():
    docs = documents([3, 4])
    batch = padded_batch(docs)
    empty = {
        "input_ids": torch.cat([batch["input_ids"], batch["input_ids"][:1]]),
        "attention_mask": torch.cat([batch["attention_mask"], torch.zeros(1, 4, dtype=torch.long)]),
    }
    for backend in BACKENDS:
        model = build(RexBertModel, attn_implementation=backend)
        with torch.no_grad():
            full, part = model(**empty).last_hidden_state, model(**batch).last_hidden_state
        close([full[:2]], [part], 1e-6)
        assert not full[2].any()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_padded_row_may_bring_its_positions(backend, side):
    """Zeros at padding are no borders of documents; a mask of ones beside a flat batch's positions hides none."""
    model = build(RexBertModel, attn_implementation=backend)
    (doc,) = docs = documents([70])
    batch = padded_batch(docs, side, extra=3)
    mask = batch["attention_mask"]
    packed = flat_batch(documents([4, 6]), "positions")
    with torch.no_grad():
        expected = model(doc[None]).last_hidden_state[0]
        for at_padding in (0, 1):
            positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, at_padding)
            found = model(**batch, position_ids=positions).last_hidden_state
            close([found[mask.bool()]], [expected], 2e-5)
            assert not found[mask == 0].any()
        flat = model(**packed).last_hidden_state
        same = model(**packed, attention_mask=torch.ones_like(packed["input_ids"])).last_hidden_state
    assert torch.equal(flat, same)


@pytest.mark.parametrize("hidden", [[8, 9], [4, 8, 9], [0, 1], [3, 4]], ids=["after", "first", "before", "between"])
@pytest.mark.parametrize("at_padding", [None, 0])
def test_several_documents_in_a_row_with_padding_are_refused(hidden, at_padding):
    """As one document they would see each other; a flat batch has no padding."""
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    mask = torch.ones_like(positions)
    mask[0, hidden] = 0
    if at_padding is not None:
        positions = positions.masked_fill(mask == 0, at_padding)
    with pytest.raises(ValueError, match="several documents, and a flat batch has no padding: leave attention_mask"):
        build(RexBertModel)(torch.arange(3, 13)[None], attention_mask=mask, position_ids=positions)


def test_a_hidden_token_inside_one_document_begins_no_other():
    positions, mask = torch.arange(10)[None], torch.ones(1, 10, dtype=torch.long)
    mask[0, 4] = 0
    model, ids = build(RexBertModel), torch.arange(3, 13)[None]
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).last_hidden_state
        found = model(ids, attention_mask=mask, position_ids=positions.masked_fill(mask == 0, 0)).last_hidden_state
    close([found], [expected], 2e-5)


def test_empty_documents_in_the_borders_are_ignored():
    docs = documents([4, 6])
    model = build(RexBertModel)
    batch = flat_batch(docs)
    borders = torch.tensor([0, 0, 4, 4, 10], dtype=torch.int32)
    with torch.no_grad():
        expected = model(**batch).last_hidden_state
        found = model(batch["input_ids"], cu_seq_lens_q=borders).last_hidden_state
    assert torch.equal(expected, found)


def test_dropout_takes_another_road_to_the_same_numbers():
    """With dropout the sdpa back-end runs through autograd; a probability of 1e-12 drops nothing here."""
    docs = documents(LENGTHS)
    plain, dropping = build(RexBertModel), build(RexBertModel, attention_dropout=1e-12)
    dropping.train()
    close([dropping(**flat_batch(docs)).last_hidden_state], [plain(**flat_batch(docs)).last_hidden_state], 1e-5)


def test_masked_lm_loss_and_logits_do_not_depend_on_the_form():
    docs = documents(LENGTHS)
    model = build(RexBertForMaskedLM)
    labels = [torch.where(torch.arange(len(d)) % 3 == 1, d.flip(0), -100) for d in docs]
    flat, padded = flat_batch(docs), padded_batch(docs, "left", extra=2)
    flat_labels = torch.cat(labels)[None]
    padded_labels = torch.full_like(padded["input_ids"], -100)
    padded_labels[padded["attention_mask"].bool()] = flat_labels[0]
    with torch.no_grad():
        one = model(**flat, labels=flat_labels, return_logits="masked", return_ranks=True)
        two = model(**padded, labels=padded_labels, return_logits="masked", return_ranks=True)
        logits = [model(d[None]).logits[0] for d in docs]
    close([one.loss, one.logits], [two.loss, two.logits], 2e-5)
    assert torch.equal(one.label_ranks, two.label_ranks)
    assert int(one.correct) == int(two.correct)
    assert int(one.num_labels) == int((flat_labels != -100).sum())
    expected = torch.cat(logits)[flat_labels[0] != -100]
    close([one.logits], [expected], 2e-5)
    loss = torch.nn.functional.cross_entropy(expected.double(), flat_labels[flat_labels != -100])
    assert float(one.loss) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cu_seq_lens_q": torch.tensor([0])}, "must rise from 0 to the number of tokens 6, got .*dispatch_batches"),
        ({"cu_seq_lens_q": torch.tensor([0, 4])}, "must rise from 0 to the number of tokens 6"),
        ({"cu_seq_lens_q": torch.tensor([0, 5, 3, 6])}, "must rise from 0"),
        ({"attention_mask": torch.ones(2, 3)}, r"attention_mask is \[2, 3\], but the input is \[1, 6\]"),
        ({"attention_mask": torch.ones(1, 1, 6, 6)}, "attention_mask has 4 dimensions"),
        (
            {"cu_seq_lens_q": torch.tensor([0, 6]), "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]])},
            "a flat batch has no padding",
        ),
    ],
)
def test_contradicting_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(RexBertModel)(torch.arange(6)[None], **arguments)


def test_a_flat_batch_of_two_rows_is_refused():
    with pytest.raises(ValueError, match=r"a flat batch is \[1, tokens\], got \[2, 3\]"):
        build(RexBertModel)(torch.arange(6).view(2, 3), cu_seq_lens_q=torch.tensor([0, 3]))


ON_CUDA = [
    ("sdpa", torch.float32, 1e-4),
    ("sdpa", torch.bfloat16, 0.1),
    ("sdpa", torch.float16, 0.02),
    ("flash_attention_2", torch.bfloat16, 0.1),
    ("flash_attention_3", torch.bfloat16, 0.1),
]


def on_cuda(backend, dtype):
    """The model, and the forms of one batch of `LENGTHS`."""
    module = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(backend)
    if module:
        pytest.importorskip(module)
    docs = documents(LENGTHS)
    model = build(RexBertModel).to("cuda", dtype)
    model.config._attn_implementation = backend
    forms = [flat_batch(docs), flat_batch(docs, "positions"), padded_batch(docs), padded_batch(docs, "left")]
    return docs, model, forms


def moved(batch):
    return {name: x.cuda() if torch.is_tensor(x) else x for name, x in batch.items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("backend", "dtype", "tolerance"), ON_CUDA)
def test_cuda_kernels_equal_float32_documents_alone(alone, backend, dtype, tolerance):
    docs, model, forms = on_cuda(backend, dtype)
    for batch in forms:
        with torch.no_grad():
            hidden = model(**moved(batch)).last_hidden_state.float().cpu()
        parts = split_padded(hidden, batch) if "attention_mask" in batch else split_flat(hidden, docs)
        close(parts, [alone(d)[-1] for d in docs], tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("backend", "dtype", "tolerance"), ON_CUDA)
def test_cuda_gradients_point_where_float32_on_cpu_does(backend, dtype, tolerance):
    docs, model, forms = on_cuda(backend, dtype)
    generator = torch.Generator().manual_seed(3)
    targets = [torch.randn(len(d), 32, generator=generator) for d in docs]
    expected = gradients(build(RexBertModel), forms[0], targets)
    there = [t.to("cuda", dtype) for t in targets]
    for batch in forms:
        found = gradients(model, moved(batch), there, moved(batch).get("attention_mask"))
        for name, grad in expected.items():
            angle = torch.cosine_similarity(found[name].float().cpu().flatten(), grad.flatten(), dim=0)
            assert float(angle) > 1 - tolerance, name


def test_a_hook_on_the_projection_is_met():
    """The rows of Wqkv are reordered on the way, but not where its call has to be seen (hooks, adapters)."""
    docs = documents(LENGTHS)
    model = build(RexBertModel)
    plain = model(**flat_batch(docs)).last_hidden_state
    seen = []
    for layer in model.layers:
        layer.attn.Wqkv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(model(**flat_batch(docs)).last_hidden_state, plain, atol=2e-5, rtol=2e-5)
    assert len(seen) == len(model.layers)


@pytest.mark.parametrize("window", [6, 64, 200])
def test_any_window_width(window):
    """Blocks grow with the window; documents on both sides of every border."""
    docs = documents([1, window, window + 1, window + 2, 400, 70, 65])
    model = build(RexBertModel, local_attention=2 * window)
    flat = split_flat(model(**flat_batch(docs)).last_hidden_state, docs)
    for ours, doc in zip(flat, docs, strict=True):
        model.set_attn_implementation("eager")
        alone = model(doc[None]).last_hidden_state[0]
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(ours, alone, atol=2e-5, rtol=2e-5)


def test_torchs_kernel_says_that_it_takes_determinism_from_torch(monkeypatch):
    """It has no argument for `deterministic_flash_attn`, and reads torch's global switch in its backward pass."""
    from rexbert_hf.models import attention_rexbert
    from rexbert_hf.models.layout_rexbert import Layout

    qkv, table = torch.randn(4, 3, 1, 8), torch.ones(4, 4)
    layout = Layout(torch.arange(4), (1, 4), torch.tensor([0, 4], dtype=torch.int32), 4)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", lambda query, *args, **options: (query,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_rexbert._varlen(qkv, table, table, layout, None, "sdpa", 0.0, False)
        with pytest.raises(UserWarning, match="full_determinism"):
            attention_rexbert._varlen(qkv, table, table, layout, None, "sdpa", 0.0, True)
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        attention_rexbert._varlen(qkv, table, table, layout, None, "sdpa", 0.0, True)
