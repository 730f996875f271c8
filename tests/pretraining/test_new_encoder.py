"""A new encoder that cannot be is one line that says which value and why, before anything is trained."""

from __future__ import annotations

import importlib.util

import pytest
from transformers import BertConfig, BertForMaskedLM

from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.pretraining.encoder import load_model, starting_config
from rexbert_hf.settings import from_dict

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["red lamp"] * 3, 384)


def recipe(**model) -> PretrainSettings:
    phase = {"name": "p", "mixture": {"shop": 1}, "max_tokens": 1000, "batch_tokens": 256, "seq_length": 64}
    sources = {"shop": {"sample": "shop_text"}}
    return from_dict(PretrainSettings, {"sources": sources, "phases": [phase], "model": model})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"hidden_size": 36, "num_attention_heads": 4}, "makes heads of width 9: .*, so it must be even"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be at least 1"),
        ({"num_attention_heads": 3}, "hidden_size=32 is not a multiple of num_attention_heads=3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be at least 1"),
        ({"intermediate_size": 0}, "intermediate_size=0 must be at least 1"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0 must be at least 1"),
        ({"hidden_activation": "gleu"}, "hidden_activation='gleu' is no activation .*; did you mean 'gelu'"),
        ({"embedding_dropout": "x"}, "'embedding_dropout': TypeError: .* value 'x'"),
        ({"layer_types": ["full_attention"]}, "layer_types.*1"),
        ({"global_rope_theta": 0.0}, "the RoPE theta of full_attention layers is 0.0: it must be above 0"),
        ({"local_rope_theta": -1.0}, "the RoPE theta of sliding_attention layers is -1.0"),
        ({"global_rope_theta": "ten"}, "the RoPE theta of full_attention layers is 'ten': it must be above 0"),
        ({"norm_eps": -1.0}, "norm_eps=-1.0 must not be negative"),
        ({"initializer_range": -1.0}, "RuntimeError: normal expects std >= 0.0"),
        ({"pad_token_id": 500}, "Padding_idx must be within num_embeddings"),
        ({"attention_output_dropout": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
    ],
)
def test_values_that_make_no_model_are_one_line(override, message, tokenizer):
    with pytest.raises(ValueError, match=message) as caught:
        load_model(recipe(size="micro", overrides={**SMALL, **override}), tokenizer)
    assert str(caught.value).startswith("model.overrides: ")
    assert "\n" not in str(caught.value)


def test_a_lack_of_memory_is_no_fault_of_an_override(tokenizer, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    monkeypatch.setattr(RexBertForMaskedLM, "__init__", full)
    with pytest.raises(RuntimeError, match="allocate"):
        load_model(recipe(size="micro", overrides=SMALL), tokenizer)


NO_FLASH = pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed")


@pytest.mark.parametrize(
    "implementation",
    [pytest.param("flash_attention_2", marks=NO_FLASH), "flex_attention", "sdpo"],
)
@pytest.mark.parametrize("start", ["new", "RexBERT", "BERT"])
def test_an_attention_that_is_not_there_is_one_line(start, implementation, tokenizer, tmp_path):
    """It names the key, and not the checkpoint, which is whole."""
    model = {"size": "micro", "overrides": SMALL}
    if start != "new":
        small = BertForMaskedLM(BertConfig(vocab_size=384, **SMALL)) if start == "BERT" else None
        small = small or RexBertForMaskedLM(RexBertConfig(vocab_size=384, pad_token_id=0, **SMALL))
        small.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        model = {"size": None, "init_from": str(tmp_path)}
    if start == "BERT" and implementation == "flex_attention":
        assert load_model(recipe(**model, attn_implementation=implementation), tokenizer)
        return
    message = rf"^model\.attn_implementation: {implementation} cannot be used \(.*\): use sdpa$"
    with pytest.raises(ValueError, match=message) as caught:
        load_model(recipe(**model, attn_implementation=implementation), tokenizer)
    assert "\n" not in str(caught.value)
    chosen = recipe(**model, attn_implementation="eager")
    assert load_model(chosen, tokenizer).config._attn_implementation == "eager"
    assert starting_config(chosen).num_hidden_layers == 2
