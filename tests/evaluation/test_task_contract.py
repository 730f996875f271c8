"""The contract of tasks: results, hashes, the registry, and the page that is rendered from it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.registry import TASKS, make_task, task_names
from rexbert_hf.evaluation.runner import comparison
from rexbert_hf.evaluation.settings import DataSettings, GridSettings
from rexbert_hf.evaluation.task import TaskOptions, TaskResult, TaskSource, Tuning, content_hash
from rexbert_hf.evaluation.task_splits import Example, TaskData
from rexbert_hf.evaluation.tasks_page import COMMAND, tasks_page
from rexbert_hf.evaluation.tuned_task import TunedTask

ROOT = Path(__file__).parents[2]


def test_a_result_without_a_number_is_refused():
    for metrics, examples, message in (
        ({"f1": float("nan")}, [1.0], "not a finite number: f1"),
        ({"f1": 0.5}, [], "test split is empty"),
        ({"f1": 0.5}, [[1.0, 2.0], [np.nan, 1.0]], "test example 1 has no finite score"),
    ):
        with pytest.raises(ValueError, match=message):
            TaskResult(metrics, np.array(examples))
    with pytest.raises(ValueError, match="not a finite number: typos"):
        TaskResult({"f1": 0.5}, np.ones(3), slices={"typos": float("inf")})


def test_hashes_tell_contents_apart():
    parts = [
        *("ab", ["ab"], ["a", "b"], [["a"], "b"], None, "None", 1, 1.0, "1", True, {"a": 1}, {"a": [1]}),
        *(np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), np.array(["a", "b"], dtype=object), Path("a/b")),
    ]
    found = [content_hash(part) for part in parts]
    assert len(set(found)) == len(found) - 1  # a list and an array of the same objects
    assert content_hash("a", "b") != content_hash("ab")
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="cannot hash a set"):
        content_hash({1})


def test_hashes_are_equal_in_every_process():
    """Another process printed this one, with another seed of Python's own hashes."""
    assert content_hash("a", [1, {"b": None}]) == "c37c09beab78802dfb5bc31864f1e0aaa9c30225"


def test_options_that_decide_figures():
    plain = TaskOptions()
    assert plain.config() == TaskOptions(cache_dir=Path("x"), keep=Path("y"), device="cpu").config()
    for change in ({"max_length": 5}, {"pooling": "cls"}, {"budget": "full"}, {"tuning": Tuning((1e-5,), (2,))}):
        assert TaskOptions(**change).config() != plain.config()
    with pytest.raises(ValueError, match="small, full"):
        TaskSource(budget="large")
    with pytest.raises(ValueError, match="at least one"):
        Tuning(learning_rates=())


def test_a_grid_changes_what_it_names_of_the_tasks_that_train():
    options = DataSettings(tuning=GridSettings(epochs=[5])).options()
    plain = TaskOptions()
    for name in ("product_search", "grid_retrieval", "masked_recovery"):
        assert make_task(name).config(options) == make_task(name).config(plain)
    for name, rate, batch in (("esci_similarity", 5e-5, 64), ("product_search_tuned", 2e-4, 256),
                              ("attribute_extraction", 3e-4, 16)):  # fmt: skip
        assert make_task(name).config(options)["tuning"] == [[rate], [5], batch]
    assert make_task("product_search_tuned").config(plain)["tuning"] is None
    with pytest.raises(ValueError, match="at least one of"):
        GridSettings(learning_rates=[])


def test_what_no_split_divides_is_drawn_together():
    """Aspects of one review, say: one group a key, in the order of the test examples."""
    several = 0
    for name in task_names(["all"]):
        task = make_task(name)
        if not isinstance(task, TunedTask) or name.startswith("glue_"):
            continue
        data = task.load(TaskSource(sample=True))
        groups = task.groups(data)
        keys = [example.key for example in data.test]
        assert len(groups) == len(keys) > len(set(keys)) - 1
        assert len(set(zip(groups.tolist(), keys, strict=True))) == len(set(keys)) == len(set(groups.tolist()))
        several += len(set(keys)) < len(keys)
    assert several > 3


def traced(work):
    """What a call gives, and the most bytes that it held."""
    tracemalloc.start()
    try:
        found = work()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_long_key_does_not_make_all_keys_long():
    """An array of texts has as many characters a row as the longest."""
    keys = ["b", "a", "x" * 100_000, "a", *(str(i) for i in range(2_000))]
    data = TaskData([], [], [Example(Row("t"), 0, key) for key in keys])
    groups, peak = traced(lambda: make_task("query_category").groups(data))
    assert peak < 2e6
    assert groups.tolist() == np.unique(np.array(keys, dtype=object), return_inverse=True)[1].tolist()
    assert groups[1] == groups[3] == groups[0] - 1


@pytest.mark.parametrize("name", ["product_classification", "query_category", "chinese_review_category"])
def test_figures_of_many_labels_take_no_row_of_numbers_for_each_example(name):
    """They are from sums: 40,000 titles in 2,000 places would take 1.9 GB after every epoch."""
    task, labels, rows = make_task(name), tuple(f"{i:03}" for i in range(300)), 2_000
    gold = [labels[i % 300] for i in range(rows)]
    several = name == "product_classification"
    examples = [Example(Row("t"), [one] if several else one, "k") for one in gold]
    data = TaskData(examples, examples, examples, labels=labels)
    said = [[i % 7] if several else i % 7 for i in range(rows)]
    (statistics, figures), peak = traced(lambda: task.measure(examples, said, data))
    assert peak < 8 * rows * (3 * 300 + 1) / 2, "not half of what such a table takes"
    assert len(statistics) == rows
    assert figures["accuracy"] == pytest.approx(np.mean([i % 300 == i % 7 for i in range(rows)]))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"epochs": [2, 0]}, "epochs 0: at least 1"),
        ({"batch_size": 0}, "batch_size 0: at least 1"),
        ({"learning_rates": [1e-4, 0.0]}, "a rate is above 0"),
        ({"learning_rates": [float("nan")]}, "a rate is above 0"),
    ],
)
def test_a_grid_that_nothing_learns_with_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        GridSettings(**grid)
    with pytest.raises(ValueError, match=message):
        Tuning(**{name: tuple(value) if isinstance(value, list) else value for name, value in grid.items()})


def test_glue_keeps_its_splits_and_says_which_one_is_measured(tmp_path):
    task = make_task("glue_qqp")
    for dataset, said in (
        ("nyu-mll/glue", "yes, GLUE dev set (full budget)"),
        ("nyu-mll/glue:qqp@main", "yes, GLUE dev set (full budget)"),
        ("my/questions", "no: data named by the user"),
    ):
        source = TaskSource(dataset=dataset, budget="full", resplit=True)
        assert (task.comparison(source), task.measured_split(source)) == (said, "validation")
    for name, files, split in (
        ("glue_rte", ("train.tsv", "dev.tsv"), "validation"),
        ("glue_sst2", ("train.tsv", "dev.tsv", "test.tsv"), "test"),
    ):
        task = make_task(name)
        (tmp_path / task.folder).mkdir(parents=True)
        for file in files:
            (tmp_path / task.folder / file).write_text("sentence\tsentence1\tsentence2\tlabel\n")
        assert task.measured_split(TaskSource(data_dir=tmp_path)) == split
    sentences = "sentence\tlabel\n" + "a fine film\t1\n" * 872  # the dev set, as mirrors call it
    (tmp_path / task.folder / "test.tsv").write_text(sentences)
    assert task.measured_split(TaskSource(data_dir=tmp_path)) == "validation"


def test_what_is_set_by_hand_stands_beside_the_papers_name():
    source, task = TaskSource(dataset="nyu-mll/glue", budget="full"), make_task("glue_rte")
    said = "yes, GLUE dev set (full budget)"
    grid = Tuning((1e-5,), (2,))
    assert comparison(task, source, TaskOptions()) == said
    assert comparison(task, source, TaskOptions(tuning=grid, pooling="cls")) == f"{said}; set by hand: pooling, tuning"
    masked = make_task("masked_recovery")
    assert comparison(masked, source, TaskOptions(tuning=grid)) == masked.comparison(source)  # it trains nothing
    assert comparison(task, TaskSource(sample=True), TaskOptions(tuning=grid)) == "no: sample shop"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is(name):
    task = make_task(name)
    for field in ("title", "paper", "data", "split", "metric", "comparable"):
        assert getattr(task, field), field
    assert type(task).__doc__
    assert set(task.baselines) <= {"random", "bm25", "dssm"}
    assert task_names([name]) == [name]


def test_the_page_is_current():
    assert (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8") == tasks_page(), f"run: {COMMAND}"
