from __future__ import annotations

import dataclasses

import pytest
from reproduction_cases import paper, plan_ahead

from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.evaluation.settings import DataSettings, GridSettings
from rexbert_hf.reproduction import jobs, reproduce
from rexbert_hf.reproduction.budgets import stage_recipe
from rexbert_hf.reproduction.jobs import Job
from rexbert_hf.reproduction.tasks import measure_task
from rexbert_hf.settings import SettingsError

CAPS = [24, 8, 16]
OPTIONS = {"task": "aspect_extraction", "caps": CAPS, "tuning": {"epochs": [1]}}
TASK = {"name": "terms", "kind": "task", "options": OPTIONS, "alike": True}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A reproduction whose one row is fine-tuned on a task of the sample shop, and the job of that row."""
    folder = tmp_path_factory.mktemp("tasks")
    changes = {"measures": [TASK], "claims": [], "columns": {"terms.f1": "F1"}, "rows": ["plain"], "seeds": [1]}
    settings = paper(folder, str(folder / "cache"), **changes)
    plan_ahead(settings)
    results = reproduce(settings)
    recipe = stage_recipe(settings, settings.stages[1])
    where = {"output_dir": str(folder / "seed-1" / "plain"), "cache_dir": str(folder / "cache"), "seed": 1}
    return results, Job(settings.stages[1], 1, dataclasses.replace(recipe, **where))


def test_a_task_measures_the_row_as_the_evaluation_does(finished):
    results, job = finished
    found = {key: value for key, value in results["rows"]["plain"][1].items() if key.startswith("terms.")}
    settings = DataSettings(tuning=GridSettings(epochs=[1]), device="cpu")
    task = make_task("aspect_extraction")
    data = task.load(settings.source("aspect_extraction")).capped(*CAPS)
    assert len(data.train) == 24
    assert len(data.test) == 16
    alone = task.run(str(job.folder), data, 1, settings.options())
    assert found == {f"terms.{key}": value for key, value in alone.metrics.items()}
    assert {"terms.f1", "terms.precision", "terms.recall"} <= set(found)


def test_what_cannot_be_measured_is_one_line(finished, tmp_path, caplog):
    job = finished[1]
    with pytest.raises(ValueError, match="no task 'aspects'"):
        measure_task(job, "aspects")
    with pytest.raises(SettingsError, match=r"unknown key 'bugdet' .from measure of task 'aspect_extraction'."):
        measure_task(job, "aspect_extraction", bugdet="full")
    with pytest.raises(ValueError, match="caps are three numbers"):
        measure_task(job, "aspect_extraction", caps=[3])
    with pytest.raises(ValueError, match=r"product_search: caps are three numbers, .* for tasks that fine-tune"):
        measure_task(job, "product_search", caps=CAPS)
    bare = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, data_dir=str(tmp_path)))
    assert measure_task(bare, "aspect_extraction") == {}
    assert "task left out: aspect_extraction: no folder semeval14_laptop/ae" in caplog.text


def test_calibration_takes_what_is_alike_once(tmp_path, monkeypatch):
    taken = []

    def measure(job, name):
        taken.append((job.stage.name, name))
        return {"value": 1.0}

    monkeypatch.setitem(jobs.MEASURES, "named", measure)
    measures = [
        {"name": "dear", "kind": "named", "options": {"name": "dear"}, "alike": True},
        {"name": "cheap", "kind": "named", "options": {"name": "cheap"}},
    ]
    settings = paper(tmp_path, measures=measures, claims=[], columns={"dear.value": "dear"}, budget=0.01)
    with pytest.raises(SettingsError, match=r"budget of 0\.01 minutes"):
        reproduce(settings)
    assert taken == [("plain", "dear"), ("plain", "cheap"), ("guided", "cheap")]
