"""Runs that an earlier version began with values that changed nothing go on once these are mended as they are told."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_finetune_search import settings_of

from rexbert_hf.hub.run_file import read_run
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer, StepTrainer
from rexbert_hf.settings import SettingsError
from rexbert_hf.training import checkpoint as ckpt
from rexbert_hf.training.interruption import TrainingInterrupted

SHORT = {"trainer__max_steps": "4", "trainer__save_epochs": "0.01", "validation__test": "false"}
HINGE = {"loss__name": "hinge", "rows__hard": "3", "rows__random": "4"}
COSENT = {"loss__name": "cosent"}

OLD = {
    "mining": ({"rows__mined": "1", "mining": "{depth: 15, keep: 5}"}, ("mining", "keep", 20), "set keep to 5"),
    "hinge": (HINGE, ("rows", "made_up", 0.2), "set it to 0"),
    "cosent": (COSENT, ("rows", "made_up", 0.2), "set it to 0"),
}
"""What a run says now; what it said before, which had the same effect; and what is told of that."""


def stop_after(steps, monkeypatch):
    stock = SearchTrainer.training_step

    def interrupted(self, *args, **kwargs):
        loss = stock(self, *args, **kwargs)
        if self.state.global_step == steps - 1:
            self._stop.received = signal.SIGTERM
        return loss

    monkeypatch.setattr(SearchTrainer, "training_step", interrupted)


@pytest.mark.parametrize("old", OLD)
def test_a_run_that_was_begun_with_a_value_without_effect_goes_on(tmp_path, monkeypatch, old):
    more, (section, name, value), told = OLD[old]
    with pytest.raises(SettingsError, match=told):
        settings_of(tmp_path / "cut", **{**SHORT, **more, f"{section}__{name}": str(value)})
    finetune_search(settings_of(tmp_path / "whole", **SHORT, **more))
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(TrainingInterrupted):
            finetune_search(settings_of(tmp_path / "cut", **SHORT, **more))
    for path in (tmp_path / "cut").glob("checkpoint-*"):
        info = ckpt.verify(path).info
        info["description"][f"{section}.{name}"] = value
        ckpt.seal(path, int(path.name.rpartition("-")[2]), info)
    for path in (tmp_path / "cut").glob("negatives-*.npy"):  # as wide as keep was
        table = np.load(path)
        np.save(path, np.pad(table, ((0, 0), (0, value - table.shape[1])), constant_values=-1))
    assert finetune_search(settings_of(tmp_path / "cut", **SHORT, **more))["resumed_from_step"] == 2
    whole, cut = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(weight, cut[key]) for key, weight in whole.items())

    run = read_run(tmp_path / "cut")
    run["config"][section][name] = value
    (tmp_path / "cut" / "run.json").write_text(json.dumps(run))
    monkeypatch.setattr(StepTrainer, "train", lambda self: pytest.fail("trained again"))
    finetune_search(settings_of(tmp_path / "cut", **SHORT, **more))


def test_a_value_with_effect_still_makes_another_run(tmp_path):
    more = {**SHORT, "trainer__max_steps": "2", "rows__mined": "1"}
    finetune_search(settings_of(tmp_path, **more, mining="{depth: 15, keep: 5}"))
    with pytest.raises(ValueError, match=r"another plan \(mining.keep: 5 -> 4\)"):
        finetune_search(settings_of(tmp_path, **more, mining="{depth: 15, keep: 4}"))
    with pytest.raises(ValueError, match=r"another plan \(rows.made_up: "):
        finetune_search(settings_of(tmp_path, **more, mining="{depth: 15, keep: 5}", rows__made_up="0.3"))
