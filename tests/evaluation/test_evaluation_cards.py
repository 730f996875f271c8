"""What an evaluation puts into `evaluation.json` and onto cards: figures of the model that was measured, and how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCardData
from toy_tasks import RUNS, STATE, TOYS, Toy, write_model

from rexbert_hf.evaluation import registry
from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.models import find_model
from rexbert_hf.evaluation.runner import set_by_hand
from rexbert_hf.evaluation.settings import EvaluateSettings, GridSettings
from rexbert_hf.evaluation.task import TaskOptions, TaskSource
from rexbert_hf.evaluation.tuning import TuningChanges
from rexbert_hf.hub import write_run
from rexbert_hf.hub.evaluated import with_evaluation, write_evaluation


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


def line_of(folder, start, which=0):
    return [line for line in (Path(folder) / "README.md").read_text().splitlines() if line.startswith(start)][which]


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


def test_what_was_set_by_hand_neither_replaces_the_protocols_figure_nor_hides(tmp_path, models):
    shown = measure(tmp_path, models)["model_index"]["good"]
    assert "max_length" not in shown[0]["metric_args"]
    changed = {"max_length": 64, "pooling": "cls", "tuning": GridSettings([1e-4], batch_size=8), "resplit": True}
    told = {"max_length": 64, "pooling": "cls", "tuning.learning_rates": [1e-4], "tuning.batch_size": 8}
    results = measure(tmp_path, models, datasets={"toy": "sample shop"}, **changed)
    standard, other = figures(models[0])
    assert standard["metric_args"] == shown[0]["metric_args"]
    assert other["metric_args"] == {**standard["metric_args"], **told, "resplit": True}
    assert (standard["dataset_split"], other["dataset_split"]) == ("test", "test, divided by hash")
    assert "max_length 64; pooling cls; tuning.learning_rates 0.0001; tuning.batch_size 8; resplit |" in (
        line_of(models[0], "| A toy | sample shop | accuracy |", -1)
    )
    card = ModelCardData(model_name="m", eval_results=[EvalResult(**one) for one in results["model_index"]["good"]])
    assert "tuning.learning_rates" in card.to_yaml()
    measure(tmp_path, models, **{**changed, "max_length": None})
    assert len(figures(models[0])) == 3
    measure(tmp_path, models)
    assert len(figures(models[0])) == 3, "the same again takes its own place"


def test_what_comes_to_the_tasks_own_protocol_is_no_change():
    class Short(Toy):
        trains = False

        def config(self, options):
            return super().config(replace(options, max_length=options.max_length or 64))

    source, task = TaskSource(sample=True, resplit=True), Short()
    assert set_by_hand(task, source, TaskOptions(max_length=64, tuning=TuningChanges(epochs=(2,)))) == {}
    assert set_by_hand(task, source, TaskOptions(max_length=32)) == {"max_length": 32}
    assert task.measured_split(source) == "test", "the sample shop has no published splits"


def test_the_runs_own_figure_stays_beside_one_of_another_protocol(tmp_path):
    own = {"task_type": "retrieval", "dataset_type": "shop", "dataset_name": "Shop", "metric_type": "recall"}
    write_run(tmp_path, config={}, results={"metrics": [{**own, "metric_value": 0.1}]})
    write_evaluation(tmp_path, [{**own, "metric_value": 0.2, "metric_args": {"budget": "small", "max_length": 8}}])
    values = [metric["metric_value"] for metric in with_evaluation(tmp_path)["results"]["metrics"]]
    assert values == [0.1, 0.2]
    write_evaluation(tmp_path, [{**own, "metric_value": 0.3, "metric_args": {"budget": "small"}}])
    assert [metric["metric_value"] for metric in with_evaluation(tmp_path)["results"]["metrics"]] == [0.2, 0.3]


def test_the_budget_of_a_figure_stands_on_the_card_unless_all_have_the_full_one(tmp_path, models):
    start = "| A toy | sample shop | accuracy |"
    full = {"budget": "full", "data_dir": str(tmp_path), "datasets": {"toy": "sample shop"}}
    measure(tmp_path, models[:1], **full)
    assert line_of(models[0], start).endswith(" | 1 |")
    assert "| protocol |" not in (Path(models[0]) / "README.md").read_text()
    measure(tmp_path, models[:1])
    assert line_of(models[0], start).endswith(" | 1 | full budget |")
    assert line_of(models[0], start, 1).endswith(" | 1 | small budget |")
    write_run(tmp_path / "fair", config={}, results={})
    measure(tmp_path, models[1:2])
    assert line_of(models[1], start).endswith(" | 1 | small budget |")
