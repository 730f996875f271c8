"""Published sizes: exact parameter counts."""

from __future__ import annotations

import pytest
import torch

from rexbert_hf import RexBertConfig, RexBertForMaskedLM

COUNTS = {"micro": 16_913_600, "mini": 68_457_664, "base": 149_655_232, "large": 395_881_664, "student": 15_108_800}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_count(name, count):
    with torch.device("meta"):
        model = RexBertForMaskedLM(RexBertConfig.from_size(name))
    model.tie_weights()
    assert model.decoder.weight is model.model.embeddings.tok_embeddings.weight
    assert sum(p.numel() for p in model.parameters()) == count


def test_overrides_reach_the_configuration():
    config = RexBertConfig.from_size("mini", vocab_size=1000, num_hidden_layers=4)
    assert (config.vocab_size, config.num_hidden_layers, config.hidden_size) == (1000, 4, 512)
    assert config.layer_types == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]


def test_unknown_size_names_the_sizes():
    with pytest.raises(ValueError, match="no RexBERT size 'huge': choose one of micro, mini, base, large"):
        RexBertConfig.from_size("huge")


@pytest.mark.parametrize("dim", [0, -1, 33])
def test_truncate_dim_out_of_range(dim):
    with pytest.raises(ValueError, match=f"truncate_dim={dim} must be an integer between 1 and hidden_size=32"):
        RexBertConfig(hidden_size=32, num_attention_heads=2, truncate_dim=dim)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_that_make_every_state_no_number_are_refused_by_their_key(value):
    with pytest.raises(ValueError, match=f"^norm_eps={value} must not be negative, and must be finite$"):
        RexBertConfig.from_size("micro", norm_eps=value)
    with pytest.raises(ValueError, match=f"^the RoPE theta of full_attention layers is {value}: .* and finite$"):
        RexBertConfig.from_size("micro", global_rope_theta=value)
