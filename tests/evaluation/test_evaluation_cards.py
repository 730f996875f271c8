"""What an evaluation puts into `evaluation.json` and onto cards: figures of the model that was measured, and how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_tasks import RUNS, STATE, TOYS, Toy, write_model

from rexbert_hf.evaluation import registry
from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.models import find_model
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.hub import write_run


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(registry, "TASKS", dict(TOYS))
    monkeypatch.setattr("rexbert_hf.evaluation.settings.TASKS", dict(TOYS))
    monkeypatch.setitem(STATE, "data", "first")
    monkeypatch.setitem(STATE, "stop_at", None)
    RUNS.clear()


@pytest.fixture
def models(tmp_path):
    write_run(tmp_path / "good", config={}, results={})
    return [write_model(tmp_path / "good", 0.8), write_model(tmp_path / "fair", 0.5), "random"]


def measure(tmp_path, models, tasks=("toy",), **more):
    options = {"seeds": 1, "resamples": 500, "output_dir": str(tmp_path / "out"), "update_cards": True, **more}
    return evaluate(EvaluateSettings(models=list(models), tasks=list(tasks), **options))


def figures(folder):
    return json.loads((Path(folder) / "evaluation.json").read_text())["metrics"]


def line_of(folder, start):
    return next(line for line in (Path(folder) / "README.md").read_text().splitlines() if line.startswith(start))


def test_a_model_that_is_written_anew_while_it_is_measured_is_not_signed(tmp_path, models, monkeypatch):
    """The figures are of the files that were loaded, or of some of them; nobody can say which."""
    run = Toy.run

    def training_on(self, model, *rest):
        found = run(self, model, *rest)
        if model.endswith("good"):
            write_model(Path(model), 0.9)
        return found

    monkeypatch.setattr(Toy, "run", training_on)
    results = measure(tmp_path, models)
    assert "good was written anew while it was measured" in results["failed"]["toy / good / seed 0"]
    assert {cell["model"] for cell in results["cells"]} == {"fair", "random"}
    assert not (tmp_path / "good" / "evaluation.json").exists()
    assert len(list((tmp_path / "out" / "cache" / "toy").glob("*.json"))) == 2
    RUNS.clear()
    monkeypatch.setattr(Toy, "run", run)
    assert not measure(tmp_path, models)["failed"]
    assert list(RUNS) == ["toy good 0"]


def test_a_model_that_is_written_anew_before_its_card_gets_no_figures(tmp_path, models, monkeypatch):
    measure(tmp_path, models)
    before = (tmp_path / "good" / "evaluation.json").read_bytes()

    def later(folder, results):
        write_model(tmp_path / "good", 0.9)

    monkeypatch.setattr("rexbert_hf.evaluation.evaluate.write_results", later)
    with pytest.raises(ValueError, match=r"good was written anew since it was measured: .*evaluate again$"):
        measure(tmp_path, models)
    assert (tmp_path / "good" / "evaluation.json").read_bytes() == before


def test_a_file_that_is_written_with_the_same_content_changes_no_model(tmp_path, models):
    model = find_model(models[0])
    write_model(tmp_path / "good", 0.8)
    (tmp_path / "good" / "README.md").write_text("a card")
    model.check_unchanged()
    (tmp_path / "good" / "vocab.txt").write_text("a")
    with pytest.raises(ValueError, match="written anew while it was measured"):
        model.check_unchanged()
    find_model("bm25").check_unchanged()


def test_figures_over_other_cells_do_not_stand_beside(tmp_path, models, monkeypatch):
    """As a grid of another number of layers: the mean is of something else, however much higher it is."""
    monkeypatch.setattr(Toy, "averaged_over", lambda self, result: (str(result.metrics["accuracy"] < 0.3),))
    measure(tmp_path, models)
    (one,) = figures(models[0])
    assert list(one["beside"]) == ["fair"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "**" not in report
    assert "Bold is the best of a row. `toy`: models' figures are over other test examples or cells" in report
    monkeypatch.setattr(Toy, "averaged_over", lambda self, result: ())
    measure(tmp_path, models)
    assert list(figures(models[0])[0]["beside"]) == ["fair", "random"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.count("**") == 2
    assert "so none is the best" not in report


def test_what_was_not_compared_does_not_look_like_no_difference(tmp_path, models):
    write_run(models[1], config={}, results={})
    measure(tmp_path, models)
    real = {name: told["real"] for name, told in figures(models[1])[0]["beside"].items()}
    assert real == {"good": True, "random": None}, "the first model alone is compared with the others"
    told = {name: told["value"] for name, told in figures(models[1])[0]["beside"].items()}
    assert line_of(models[1], "| A toy").endswith(f"| {told['good']}* | {told['random']} (not compared) |")
    assert "\n(not compared): nothing was asked about the difference" in (Path(models[1]) / "README.md").read_text()
    assert "not compared" not in (Path(models[0]) / "README.md").read_text()


def test_one_column_of_a_card_is_one_model(tmp_path, models):
    """runs/x/final and runs/y/final are both called final where only one of them is in an evaluation."""
    for name, share in (("x", 0.5), ("y", 0.3)):
        write_model(tmp_path / name / "final", share)
    measure(tmp_path, [models[0], str(tmp_path / "x" / "final"), "random"])
    first = figures(models[0])[0]["beside"]
    assert first["final"]["key"] == find_model(str(tmp_path / "x" / "final")).key
    measure(tmp_path, [models[0], str(tmp_path / "x" / "final")], ["median"])
    assert [list(one["beside"]) for one in figures(models[0])] == [["final", "random"], ["final"]]
    measure(tmp_path, [models[0], str(tmp_path / "y" / "final")], ["median"])
    old, new = figures(models[0])
    assert old["beside"] == {"random": first["random"]}
    assert new["beside"]["final"]["key"] == find_model(str(tmp_path / "y" / "final")).key
    assert str(first["final"]["value"]) not in line_of(models[0], "| A toy")
