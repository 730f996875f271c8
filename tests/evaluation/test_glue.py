"""GLUE: files of both layouts, official metrics, and what wrong files get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from scipy import stats
from sklearn import metrics as sk
from tuning_cases import save_tiny

from rexbert_hf.evaluation import glue
from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.evaluation.task import DataMissing, TaskOptions, TaskSource, Tuning

TASKS = [glue.CoLA, glue.SST2, glue.MRPC, glue.STSB, glue.QQP, glue.MNLI, glue.QNLI, glue.RTE, glue.WNLI]
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HEADERS = {
    "SST-2": "sentence\tlabel",
    "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "MNLI": "index\tsentence1\tsentence2\tgold_label",
    "QNLI": "index\tquestion\tsentence\tlabel",
    "RTE": "index\tsentence1\tsentence2\tlabel",
    "WNLI": "index\tsentence1\tsentence2\tlabel",
    "MRPC": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "STS-B": "index\tsentence1\tsentence2\tscore",
}


def label_of(task, i):
    if task is glue.STSB:
        return str(i % 6)
    return task.classes[i % len(task.classes)] if "entail" in task.classes[0] else str(i % 2)


def line(task, name, i):
    values = {"label": label_of(task, i), "star": "", "source": "gj"}
    values |= dict.fromkeys(("gold_label", "is_duplicate", "score", "Quality"), values["label"])
    columns = HEADERS.get(task.task, "source\tlabel\tstar\tsentence").lstrip("\ufeff").split("\t")
    return "\t".join(values.get(column, f'{name} "{column} {i}') for column in columns)


def write_glue(folder, task, names=("train.tsv", "dev.tsv"), rows=(60, 20)):
    folder = folder / "glue" / task.task
    folder.mkdir(parents=True)
    for name, count in zip(names, rows, strict=True):
        header = [HEADERS[task.task]] if task.task in HEADERS else []
        lines = [*header, *(line(task, name, i) for i in range(count))]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_glues_own_layout_is_read(task, tmp_path):
    names = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv") if task is glue.MNLI else ("train.tsv", "dev.tsv")
    write_glue(tmp_path, task, names, (200, 20, 10)[: len(names)])
    data = task().load(TaskSource(data_dir=tmp_path, budget="full", resplit=True))
    assert len(data.train) + len(data.dev) == 200
    assert 5 <= len(data.dev) <= 40, "a tenth, by hash"
    assert len(data.test) == (30 if task is glue.MNLI else 20)
    row = data.test[3].row
    assert '"' in row.text, "quotes are text"
    assert (row.pair is None) == (task in (glue.CoLA, glue.SST2))
    wanted = 3.0 if task is glue.STSB else task.classes[3 % len(task.classes)]
    assert row.label == wanted
    assert row.where.endswith(f"line {4 if task is glue.CoLA else 5}")


@pytest.mark.parametrize("task", [glue.CoLA, glue.RTE])
def test_a_val_file_chooses(task, tmp_path):
    write_glue(tmp_path, task, ("train.tsv", "val.tsv", "dev.tsv"), (40, 12, 20))
    data = task().load(TaskSource(data_dir=tmp_path))
    assert [len(part) for part in data.named().values()] == [40, 12, 20]
    assert data.dev[0].row.text.startswith("val.tsv")


def test_a_file_without_a_header_has_the_columns_of_train(tmp_path):
    folder = write_glue(tmp_path, glue.RTE, ("train.tsv", "val.tsv", "dev.tsv"), (40, 12, 20))
    whole = glue.RTE().load(TaskSource(data_dir=tmp_path))
    text = (folder / "val.tsv").read_text(encoding="utf-8")
    (folder / "val.tsv").write_text(text.partition("\n")[2], encoding="utf-8")
    headless = glue.RTE().load(TaskSource(data_dir=tmp_path))
    assert [one.row[:3] for one in headless.dev] == [one.row[:3] for one in whole.dev]
    assert headless.dev[0].row.where.endswith("val.tsv, line 1")


def test_a_test_file_without_labels_is_not_tested_on(tmp_path):
    folder = write_glue(tmp_path, glue.SST2)
    (folder / "test.tsv").write_text("index\tsentence\n0\tfine\n", encoding="utf-8")
    assert len(glue.SST2().load(TaskSource(data_dir=tmp_path)).test) == 20
    write_glue(tmp_path / "mirror", glue.SST2, ("train.tsv", "dev.tsv", "test.tsv"), (40, 12, 20))
    data = glue.SST2().load(TaskSource(data_dir=tmp_path / "mirror"))
    assert [len(part) for part in data.named().values()] == [40, 12, 20]


def test_missing_and_wrong_files_are_one_line(tmp_path):
    with pytest.raises(DataMissing, match="glue_cola: no folder glue/CoLA in"):
        glue.CoLA().load(TaskSource(data_dir=tmp_path))
    with pytest.raises(DataMissing, match="the sample shop has no GLUE"):
        glue.CoLA().load(TaskSource(sample=True))
    folder = write_glue(tmp_path, glue.RTE)
    (folder / "dev.tsv").unlink()
    with pytest.raises(DataMissing, match=r"does not hold train.tsv, val.tsv, dev.tsv or train.tsv, dev.tsv"):
        glue.RTE().load(TaskSource(data_dir=tmp_path))
    for text, message in (
        (
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n",
            r"line 2: the label 'maybe' is outside the set",
        ),
        ("index\tsentence1\tsentence2\tlabel\n0\ta\n", r"dev.tsv, line 2: 2 fields, but column 'label' is wanted"),
        ("index\tsentence1\tlabel\n0\ta\tb\n", r"dev.tsv: no column 'sentence2', only index"),
        ("index\tsentence1\tsentence2\tlabel\n", "the test split is empty"),
        ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n", "all 1 rows of the test split have the label"),
    ):
        (folder / "dev.tsv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            glue.RTE().load(TaskSource(data_dir=tmp_path))
    (folder / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\tcaf\u00e9\tb\t0\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"dev.tsv: not UTF-8 \(invalid continuation byte\)"):
        glue.RTE().load(TaskSource(data_dir=tmp_path))


@pytest.mark.parametrize("after", [1_500, 20_000])
def test_an_open_quote_names_its_line(tmp_path, after):
    """It would take in all that follows: one short line of many, or a field beyond csv's limit."""
    folder = tmp_path / "glue" / "STS-B"
    folder.mkdir(parents=True)
    lines = [f"a mug,a cup,{i % 6}" for i in range(after)]
    for part in ("train", "dev", "test"):
        (folder / f"stsb-en-{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    broken = [*lines[:1_200], '"two\nlines",a cup,3', 'a mug,"a cup,4', *lines]
    (folder / "stsb-en-dev.csv").write_text("\n".join(broken) + "\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"stsb-en-dev.csv, line 1203: no CSV \(.+\); close its quote, or fetch the file"
    ):
        glue.STSB().load(TaskSource(data_dir=tmp_path))


def test_a_few_short_lines_are_left_out_and_counted(tmp_path, caplog):
    folder = write_glue(tmp_path, glue.QQP, rows=(2_000, 20))
    with (folder / "train.tsv").open("a", encoding="utf-8") as handle:
        handle.write("2000\t1\t2\n")
    data = glue.QQP().load(TaskSource(data_dir=tmp_path, budget="full"))
    assert len(data.train) + len(data.dev) == 2_000
    assert data.counts == {"short_lines": 1}
    assert "train.tsv: 1 of 2001 lines are left out: too few fields" in caplog.text
    with (folder / "train.tsv").open("a", encoding="utf-8") as handle:
        handle.write("2001\t1\t2\n" * 2)
    with pytest.raises(ValueError, match=r"train.tsv, line 2002: 3 fields, but column 'is_duplicate' is wanted \(3 of"):
        glue.QQP().load(TaskSource(data_dir=tmp_path, budget="full"))


def test_the_hub_form_is_read_and_its_unlabelled_test_is_not(tmp_path):
    features = Features({"premise": Value("string"), "hypothesis": Value("string"),
                         "label": ClassLabel(names=["entailment", "neutral", "contradiction"])})  # fmt: skip

    def part(name, count, labels=(0, 1, 2)):
        rows = [{"premise": f"{name} {i}", "hypothesis": "b", "label": labels[i % len(labels)]} for i in range(count)]
        return Dataset.from_list(rows, features=features)

    parts = {"train": part("train", 100), "validation_matched": part("m", 12), "validation_mismatched": part("mm", 9)}
    DatasetDict({**parts, "test_matched": part("t", 5, (-1,))}).save_to_disk(tmp_path / "mnli")
    task = glue.MNLI()
    data = task.load(TaskSource(dataset=str(tmp_path / "mnli")))
    assert (len(data.train) + len(data.dev), len(data.test)) == (100, 21)
    said = [0] * 21
    statistics, figures = task.measure(data.test, said, data)
    assert figures == {"accuracy": pytest.approx(1 / 3), "accuracy_mismatched": pytest.approx(1 / 3)}
    assert task.score(statistics[:12]) == pytest.approx(1 / 3)


def test_matched_rows_are_counted_and_capped_for_themselves(tmp_path):
    """The primary figure is of them alone."""
    names = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv")
    write_glue(tmp_path, glue.MNLI, names, rows=(60, 1_300, 1_200))
    data = glue.MNLI().load(TaskSource(data_dir=tmp_path))
    assert np.bincount([isinstance(one.gold, tuple) for one in data.test]).tolist() == [1_000, 1_000]
    whole = glue.MNLI().load(TaskSource(data_dir=tmp_path, budget="full"))
    for found, rows in ((data, 1_000), (whole, 1_300)):
        result = glue.MNLI().run("random", found, 0, TaskOptions())
        assert (result.counts["test"], result.tested) == (rows, rows)
        assert result.counts["test"] + result.counts["test_mismatched"] == len(result.examples)
    settings = EvaluateSettings(models=["random"], tasks=["glue_mnli"], data_dir=tmp_path, seeds=1,
                                output_dir=str(tmp_path / "out"))  # fmt: skip
    (entry,) = evaluate(settings)["model_index"]["random"]
    assert entry["metric_args"]["test_examples"] == 1_000


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_figures_are_those_of_the_references(task, tmp_path):
    names = ("train.tsv", "dev_matched.tsv") if task is glue.MNLI else ("train.tsv", "dev.tsv")
    write_glue(tmp_path, task, names)
    made = task()
    data = made.load(TaskSource(data_dir=tmp_path))
    rng = np.random.default_rng(0)
    gold = np.array([one.gold for one in data.test])
    if task is glue.STSB:
        said = gold + rng.normal(size=len(gold))
        expected = {"spearman": stats.spearmanr(gold, said).statistic, "pearson": stats.pearsonr(gold, said).statistic}
    else:
        said = rng.integers(0, len(task.classes), len(gold))
        expected = {"accuracy": sk.accuracy_score(gold, said)}
        if made.metric == "f1":
            expected["f1"] = sk.f1_score(gold, said)
        if made.metric == "matthews":
            expected["matthews"] = sk.matthews_corrcoef(gold, said)
    statistics, figures = made.measure(data.test, said, data)
    assert figures == {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()}
    assert made.score(statistics) == pytest.approx(figures[made.metric], abs=1e-9)
    drawn = rng.integers(0, len(gold), (3, len(gold)))
    if made.additive:
        sums = made.score_sums(statistics[drawn].sum(axis=1), len(gold))
        np.testing.assert_allclose(sums, [made.score(statistics[rows]) for rows in drawn])


def test_constant_predictions_have_no_correlation_but_a_figure(tmp_path):
    write_glue(tmp_path, glue.STSB)
    task = glue.STSB()
    data = task.load(TaskSource(data_dir=tmp_path))
    assert task.measure(data.test, [2.5] * 20, data)[1] == {"spearman": 0.0, "pearson": 0.0}


def test_a_run_is_the_same_again_and_random_is_drawn(tmp_path):
    write_glue(tmp_path, glue.RTE)
    folder = save_tiny(tmp_path / "model")
    task = glue.RTE()
    data = task.load(TaskSource(data_dir=tmp_path))
    options = TaskOptions(tuning=Tuning((1e-3,), (1,), 16), max_length=32, keep=tmp_path / "kept")
    one, again = (task.run(folder, data, 0, options) for _ in range(2))
    np.testing.assert_array_equal(one.examples, again.examples)
    assert one.metrics == again.metrics
    assert task.config(options) != task.config(TaskOptions()), "what the cache tells runs apart by"
    assert (one.counts["train"], one.counts["test"]) == (len(data.train), 20)
    assert (tmp_path / "kept" / "config.json").exists()
    drawn = [task.run("random", data, seed, options).metrics["accuracy"] for seed in range(40)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(40 * 20))


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "glue").is_dir(), reason="no shared data")
def test_published_sizes_of_the_real_files():
    sizes = {}
    for task in (glue.CoLA, glue.SST2, glue.RTE, glue.STSB, glue.MRPC):
        data = task().load(TaskSource(data_dir=REAL, budget="full"))
        sizes[task.task] = (len(data.train) + (0 if task is glue.STSB else len(data.dev)), len(data.test))
    expected = {"CoLA": (8551, 1043), "SST-2": (67349, 872), "RTE": (2490, 277), "STS-B": (5749, 1379)}
    assert sizes == {**expected, "MRPC": (4076, 1725)}
