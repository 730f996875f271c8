"""Flat batches give the vectors of `model.encode`, whatever the lengths, the pooling and the budget."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx_cases import TEXTS, small_encoder

from rexbert_hf.retrieval.serving.encoding import encode_flat, runs_bfloat16, takes_flat_batches
from rexbert_hf.retrieval.serving.hashing_encoder import HashingEncoder
from rexbert_hf.retrieval.serving.query_model import encode, fingerprint, load_model

MIXED = [*TEXTS, *(" ".join(["word"] * n) for n in range(1, 60, 7))]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("budget", [8, 100, 10_000])
def test_vectors_are_those_of_encode(pooling, budget):
    model = small_encoder(pooling)
    assert takes_flat_batches(model)
    expected = model.encode(MIXED, show_progress_bar=False)
    assert np.abs(expected - expected[0]).max() > 0.05
    np.testing.assert_allclose(encode_flat(model, MIXED, batch_tokens=budget), expected, atol=1e-5)
    assert encode_flat(model, []).shape == (0, 64)


def test_prompts_are_those_of_the_model():
    model = small_encoder()
    model.prompts = {"query": "query: ", "passage": "text: "}
    np.testing.assert_allclose(encode_flat(model, MIXED, "query"), model.encode_query(MIXED), atol=1e-5)
    np.testing.assert_allclose(encode_flat(model, MIXED, "document"), model.encode_document(MIXED), atol=1e-5)
    np.testing.assert_allclose(encode_flat(model, MIXED), model.encode(MIXED), atol=1e-5)
    model[1].include_prompt = False
    np.testing.assert_allclose(encode_flat(model, MIXED, "query"), model.encode_query(MIXED), atol=1e-5)


@pytest.mark.parametrize("default", [None, "other"])
@pytest.mark.parametrize("names", [["document", "passage"], ["passage"], ["query", "corpus"], []])
def test_the_first_prompt_that_is_there_counts_even_if_it_is_empty(names, default):
    model = small_encoder()
    model.prompts = {"other": "other: ", "passage": "text: ", **dict.fromkeys(names[:1], ""), "corpus": "corpus: "}
    model.default_prompt_name = default
    np.testing.assert_allclose(encode_flat(model, MIXED, "query"), model.encode_query(MIXED), atol=1e-5)
    np.testing.assert_allclose(encode_flat(model, MIXED, "document"), model.encode_document(MIXED), atol=1e-5)
    np.testing.assert_allclose(encode_flat(model, MIXED), model.encode(MIXED), atol=1e-5)


def test_fewer_dimensions_and_training_mode():
    model = small_encoder()
    model.truncate_dim = 16
    model.train()
    found = encode_flat(model, MIXED)
    assert model.training
    np.testing.assert_allclose(found, model.encode(MIXED), atol=1e-5)
    assert found.shape[1] == 16


def test_bfloat16_is_asked_for_on_cpu_and_rounds():
    model = small_encoder()
    exact = encode_flat(model, MIXED, bf16=False)
    assert np.array_equal(encode_flat(model, MIXED), exact)
    found = encode_flat(model, MIXED, bf16=True)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.05


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_by_itself_is_for_fast_gpus_and_float32(monkeypatch, fast):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast and not including_emulation)

    def model(device, dtype=torch.float32):
        return SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device(device), dtype=dtype)]))

    assert runs_bfloat16(model("cuda"), "auto") is fast
    assert not runs_bfloat16(model("cpu"), "auto")
    assert not runs_bfloat16(model("cuda", torch.float16), "auto")
    assert not runs_bfloat16(model("cuda", torch.bfloat16), True)
    assert not runs_bfloat16(model("cuda"), False)


def test_an_index_uses_flat_batches(monkeypatch):
    model = small_encoder()
    monkeypatch.setattr(type(model), "encode", lambda *_, **__: pytest.fail("padded"))
    assert encode(model, ["a", "b"], "query").shape == (2, 64)


def test_other_models_are_refused():
    assert not takes_flat_batches(HashingEncoder())
    with pytest.raises(ValueError, match="encode_flat takes a SentenceTransformer with a RexBERT encoder"):
        encode_flat(HashingEncoder(), ["a"])
    separate = small_encoder(shared=False)
    assert not takes_flat_batches(separate)
    assert encode(separate, ["a", "b"]).shape == (2, 64)


@pytest.mark.parametrize("key", ["num_attention_heads", "local_attention", "norm_eps"])
def test_fingerprints_follow_the_configuration(key, tmp_path):
    """Of which the weights show nothing."""
    model = small_encoder()
    first = fingerprint(model)
    model.save_pretrained(str(tmp_path))
    assert fingerprint(load_model(tmp_path)) == first
    config = model[0].model.config
    config._name_or_path, config.transformers_version, config.architectures = "elsewhere", "9", ["RexBertModel"]
    assert fingerprint(model) == first
    setattr(config, key, getattr(config, key) * 2)
    assert fingerprint(model) != first


def test_fingerprints_follow_what_decides_the_vectors():
    import torch

    model = small_encoder()
    first = fingerprint(model)
    model.encode(MIXED)  # leaves lengths and padding in the tokenizer
    assert fingerprint(model) == fingerprint(small_encoder()) == first
    others = [small_encoder("cls"), small_encoder(max_tokens=20), small_encoder()]
    with torch.no_grad():
        next(others[2].parameters())[0, 0] += 1e-3
    assert len({first, *(fingerprint(model) for model in others)}) == 4
    assert fingerprint(HashingEncoder(64)) != fingerprint(HashingEncoder(32))
