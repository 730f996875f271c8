"""Settings that nothing reads are named; those of the recipes that ship are all read."""

from __future__ import annotations

import pytest
from pretraining_cases import CONFIGS

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.pretraining.unread import unread_settings
from rexbert_hf.settings import from_dict, load_settings


def recipe(guides=None, associations=None, **phase):
    phase = {"name": "one", "mixture": {"shop": 1}, "max_tokens": 1000} | phase
    values = {"sources": {"shop": {"sample": "shop_text"}}, "phases": [phase], "guides": guides or {}}
    return from_dict(PretrainSettings, values | ({"associations": associations} if associations else {}))


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({}, []),
        ({"associations": {"sample": True}}, ["associations"]),
        ({"associations": {"sample": True}, "objectives": ["mlm", "npr"], "neighbors": {"weight": 2}}, []),
        ({"guides": {"phrases": "pool", "brands": "b.txt"}}, ["guides.brands", "guides.phrases"]),
        ({"guides": {"phrases": "pool"}, "masking": {"kind": "span"}}, ["guides.phrases"]),
        ({"guides": {"phrases": "pool", "always": True}}, []),
        ({"guides": {"phrases": "pool"}, "masking": {"kind": "phrase"}}, []),
        ({"neighbors": {"weight": 2}}, ["phases.one.neighbors"]),
        ({"masking": {"kind": "span", "whole_word": True}}, ["phases.one.masking.whole_word"]),
        ({"masking": {"kind": "mlm", "whole_word": True}}, []),
        ({"masking": {"guidance_start": 0.5}}, ["phases.one.masking.guidance_start"]),
        ({"masking": {"kind": "guided", "guidance_start": 0.5}}, []),
    ],
)
def test_what_no_phase_reads_is_named(values, keys):
    assert [line.partition(": ")[0] for line in unread_settings(recipe(**values))] == keys


@pytest.mark.parametrize("name", ["quickstart.yaml", "ebert.yaml"])
def test_recipes_that_ship_are_read_whole(name):
    assert unread_settings(load_settings(PretrainSettings, CONFIGS / name)) == []
