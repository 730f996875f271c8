"""Numbers out of range: one line that names the key and the file, before any data is read."""

from __future__ import annotations

import math
import re

import pytest

from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.settings import SettingsError, from_dict, load_settings

PRETRAIN = {
    "sources": {"shop": {"sample": "shop_text"}},
    "phases": [{"name": "one", "mixture": {"shop": 1}, "max_tokens": 1000}],
}
"""The least that each class needs beside the number."""

NUMBERS = [
    (StagedSettings, PRETRAIN, "phases.0.batch_tokens", [0, -1024]),
    (StagedSettings, PRETRAIN, "phases.0.batch_warmup_tokens", [-1]),
    (StagedSettings, PRETRAIN, "phases.0.learning_rate", [0, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.global_rope_theta", [0, -1]),
    (StagedSettings, PRETRAIN, "phases.0.mixture.shop", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.schedule.alpha_f", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.masking.guidance_tokens", [-1]),
    (StagedSettings, PRETRAIN, "phases.0.masking.guidance_start", [-0.5, 2]),
    (StagedSettings, PRETRAIN, "phases.0.languages.temperature", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "micro_batch_tokens", [0, -1]),
    (StagedSettings, PRETRAIN, "scale", [0, -1, math.inf, 1e306]),
    (StagedSettings, PRETRAIN, "tokenizer.max_documents", [0, -1]),
    (StagedSettings, PRETRAIN, "tokenizer.temperature", [-1, math.inf]),
]


def with_key(values, dotted, value):
    """A copy of plain values with one dotted key set."""
    first, _, rest = dotted.partition(".")
    if isinstance(values, list):
        return [with_key(item, rest, value) if str(at) == first else item for at, item in enumerate(values)]
    return {**values, first: with_key(values.get(first, {}), rest, value) if rest else value}


@pytest.mark.parametrize(
    ("cls", "least", "key", "value"),
    [(cls, least, key, value) for cls, least, key, values in NUMBERS for value in values],
    ids=lambda part: part.__name__ if isinstance(part, type) else "" if isinstance(part, dict) else str(part),
)
def test_a_number_out_of_range_is_one_line(cls, least, key, value):
    from_dict(cls, least)  # nothing else is wrong with it
    with pytest.raises(SettingsError) as refused:
        from_dict(cls, with_key(least, key, value), "run.yaml")
    said = str(refused.value)
    assert re.search(rf"\b{key.rpartition('.')[2]}\b", said), said
    assert "run.yaml" in said, said
    assert "\n" not in said, said


def test_the_line_names_the_flag_too(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "sources: {shop: {sample: shop_text}}\nphases: [{name: one, mixture: {shop: 1}, max_tokens: 1000}]\n"
    )
    with pytest.raises(SettingsError) as refused:
        load_settings(StagedSettings, config, [("micro_batch_tokens", "0")])
    said = str(refused.value)
    assert "micro_batch_tokens must be at least 1; got 0" in said
    assert "command line --micro_batch_tokens" in said
