"""E-BERT's tasks and those beyond: a model that knows the answers scores 1, on plain and on changed inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from tuning_cases import TEXTS, THINGS, save_tiny

from rexbert_hf.evaluation import tuned_task
from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.evaluation.task import DataMissing, TaskOptions, TaskSource, Tuning
from rexbert_hf.evaluation.task_splits import TaskData

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SAMPLE = TaskSource(sample=True)
TASKS = (
    "review_qa",
    "review_qa_electronics",
    "aspect_extraction",
    "aspect_sentiment",
    "product_classification",
    "offer_classification",
    "attribute_extraction",
    "chinese_review_category",
)
# Values that no tag can say (they begin within a word, lie within another, or stand twice in a title).
PERFECT = {"attribute_extraction": 0.97}


class Oracle:
    """Answers as the head would, from the labels of the rows."""

    notes = ("of the model",)

    def __init__(self, head, labels, wrong=False):
        self.head, self.labels, self.wrong = head, list(labels), wrong

    def predict(self, rows):
        if self.wrong:
            return self.wrong_answers(rows)
        if self.head == "sequence":
            return np.array([self.labels.index(row.label) for row in rows])
        if self.head == "multi_label":
            return np.array([[float(one in row.label) for one in self.labels] for row in rows])
        return [row.label for row in rows]

    def wrong_answers(self, rows):
        if self.head == "sequence":
            return np.array([(self.labels.index(row.label) + 1) % len(self.labels) for row in rows])
        if self.head == "multi_label":
            return np.array([[float(one not in row.label) for one in self.labels] for row in rows])
        return [["O"] * len(row.label) if self.head == "token" else None for row in rows]


@pytest.fixture
def oracle(monkeypatch):
    """`fine_tune` gives an oracle; returns what it was called with."""
    calls = []

    def fine_tune(model, head, train, dev, **options):
        calls.append({"train": train, "dev": dev, **options})
        fitted = Oracle(head, options["labels"], wrong=model == "wrong")
        calls[-1]["dev figure"] = options["metric"](fitted.predict(dev), dev)
        return fitted

    monkeypatch.setattr(tuned_task, "fine_tune", fine_tune)
    return calls


@pytest.mark.parametrize("name", TASKS)
def test_right_and_wrong_models(name, oracle):
    task = make_task(name)
    data = task.load(SAMPLE)
    best = task.run("right", data, 0, TaskOptions())
    least = PERFECT.get(name, 1.0)
    assert best.metrics[task.metric] >= least
    assert oracle[0]["dev figure"] >= least
    assert task.score(best.examples) == pytest.approx(best.metrics[task.metric], abs=1e-12)
    assert {kind: score >= least for kind, score in best.slices.items()} == dict.fromkeys(best.slices, True)
    assert set(task.slice_kinds) - {"units"} <= set(best.slices)
    assert best.counts["test"] == len(data.test) == len(best.examples)
    assert best.notes == (*data.notes, "of the model")
    worst = task.run("wrong", data, 0, TaskOptions())
    assert worst.metrics[task.metric] == 0.0
    guessed = task.run("random", data, 0, TaskOptions())
    assert 0.0 <= guessed.metrics[task.metric] < 0.75
    assert guessed.metrics == task.run("random", data, 0, TaskOptions()).metrics
    assert guessed.metrics.keys() == best.metrics.keys()


@pytest.mark.parametrize("name", TASKS)
def test_data_are_the_same_every_time(name):
    task = make_task(name)
    data = task.load(SAMPLE)
    assert task.fingerprint(data) == make_task(name).fingerprint(make_task(name).load(SAMPLE))
    assert all(len(part) > 20 for part in data.named().values())
    keys = [{one.key for one in part} for part in data.named().values()]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]


@pytest.mark.parametrize("name", TASKS)
def test_resamples_are_scored_from_sums(name):
    """`score_sums` over many resamples is `score` of each: what the bootstrap relies on."""
    task = make_task(name)
    result = task.run("random", task.load(SAMPLE), 0, TaskOptions())
    draws = np.random.default_rng(0).integers(0, len(result.examples), (5, len(result.examples)))
    sums = result.examples[draws].sum(axis=1)
    together = task.score_sums(sums, len(result.examples))
    assert together.tolist() == pytest.approx([task.score(result.examples[draw]) for draw in draws], abs=1e-12)


@pytest.mark.parametrize(("rare", "slices"), [(20, {"rare_brands": 1.0}), (19, {})])
def test_titles_of_rare_brands_are_a_slice_where_there_are_enough(rare, slices, monkeypatch):
    class KnowsRare(Oracle):
        def predict(self, rows):
            right, wrong = super().predict(rows), self.wrong_answers(rows)
            return np.array(
                [a if row.text.startswith("Zed") else b for row, a, b in zip(rows, right, wrong, strict=True)]
            )

    def titles(acme, zed):
        brands = ["Acme"] * acme + ["Zed"] * zed
        rows = ({"title": f"{brand} no {i}", "category_path": ["AB"[i % 2]]} for i, brand in enumerate(brands))
        return [task.read_row(row, "row") for row in rows]

    task = make_task("product_classification")
    monkeypatch.setattr(task, "slice_kinds", ())
    monkeypatch.setattr(tuned_task, "fine_tune", lambda model, head, *_, labels, **__: KnowsRare(head, labels))
    data = TaskData(titles(30, 4), titles(2, 2), titles(30, rare), labels=("A", "B"))
    result = task.run("rare", data, 0, TaskOptions())
    assert result.slices == slices
    assert result.metrics["accuracy"] == pytest.approx(rare / (30 + rare), abs=1e-9)


def test_options_reach_the_training(oracle):
    task = make_task("aspect_sentiment")
    data = task.load(SAMPLE)
    task.run("right", data, 3, TaskOptions())
    grid = Tuning(learning_rates=(5e-6, 5e-5), epochs=(2, 5), batch_size=32)
    task.run("right", data, 4, TaskOptions(budget="full", max_length=64, pooling="cls", tuning=grid))
    task.run("right", data, 4, TaskOptions(budget="full"))
    assert [call["tuning"] for call in oracle] == [task.small, grid, task.full]
    assert [call["max_length"] for call in oracle] == [task.max_length, 64, task.max_length]
    assert [(call["seed"], call["pooling"]) for call in oracle] == [(3, None), (4, "cls"), (4, None)]


def test_answers_are_the_context_and_not_the_label(oracle):
    """A model that finds another place with the right words has the right answer: SQuAD compares words."""
    task = make_task("review_qa")
    example = task.load(SAMPLE).test[0]
    start, end = example.row.label
    assert task.decode([(start, end), None], [example, example], None) == [example.gold[0], ""]


def test_paths_are_decoded_within_the_hierarchy():
    """No leaf is above one half, and the prediction is the likeliest whole path all the same."""
    task = make_task("product_classification")
    rows = [{"title": f"t{i}", "category_path": path} for i, path in enumerate(["A > x", "A > y", "B > z"])]
    examples = [task.read_row(row, "row") for row in rows]
    data = TaskData(examples, examples, examples, labels=task.labels_of(examples))
    assert data.labels == ("A", "A > x", "A > y", "B", "B > z")
    answers = np.array([[0.6, 0.1, 0.3, 0.4, 0.39], [0.6, 0.45, 0.3, 0.4, 0.39]])
    # Sums of logits: A > y .405 - .847, B > z -.405 - .447, A > x .405 - 2.2; then A > x .405 - .2.
    assert task.decode(answers, examples[:2], data) == [(0, 2), (0, 1)]
    assert task.decode(1 - answers[:1], examples[:1], data) == [(0, 1)], "-.405 + 2.2"


def test_perturbed_values_are_those_of_the_new_title():
    task = make_task("attribute_extraction")
    row = {"title": "Ostwick Kettle 16 oz, Red", "attributes": [
        {"name": "brand", "value": "Ostwick"}, {"name": "size", "value": "16 oz"}, {"name": "colour", "value": "Red"}
    ]}  # fmt: skip
    example = task.read_row(row, "row")
    for kind in task.slice_kinds:
        changed = task.perturbed(example, kind)
        assert all(value in changed.key for _, value in changed.gold)
        decoded = task.decode([changed.row.label], [changed], None)[0]
        assert sorted(decoded) == sorted(changed.gold)
    assert ("size", "16oz") in task.perturbed(example, "units").gold


def test_values_that_no_tag_can_say_stay_gold_on_changed_titles():
    task = make_task("attribute_extraction")
    row = {"title": "Ostwick Kettle 16 oz", "attributes": [
        {"name": "brand", "value": "Ostwick"}, {"name": "line", "value": "wick"},
        {"name": "kind", "value": "Ostwick Kettle"}
    ]}  # fmt: skip
    example = task.read_row(row, "row")
    for kind in ("typos", "casing"):
        changed = task.perturbed(example, kind)
        assert len(changed.gold) == len(example.gold) == 3
        assert {("line", "wick"), ("brand", "Ostwick")} < set(changed.gold)


def test_values_that_a_title_does_not_say_are_counted(tmp_path):
    row = {"title": "Ostwick Kettle", "attributes": [
        {"name": "brand", "value": "Ostwick"}, {"name": "colour", "value": "red"}]}  # fmt: skip
    rows = [{**row, "product_id": str(i), "title": f"Ostwick Kettle {i}"} for i in range(60)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    data = make_task("attribute_extraction").load(TaskSource(dataset=str(tmp_path / "set")))
    assert data.counts["values_not_in_title"] == 60
    assert data.notes == ("60 values of product records are not in their titles: left out of the gold values",)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("product_classification", {"title": "mug", "category_path": ["A", None]}),
        ("product_classification", {"title": 3, "category_path": ["A"]}),
        ("attribute_extraction", {"title": "mug", "attributes": [{"name": "kind", "value": None}]}),
        ("attribute_extraction", {"title": "mug", "attributes": [{"name": "kind", "value": None}], "product_id": "1"}),
        ("attribute_extraction", {"title": "mug", "attributes": [{"value": "mug"}]}),
        ("attribute_extraction", {"title": 3, "attributes": []}),
        ("review_qa", {"question": "q ?", "context": "ab", "answers": {"text": ["ab"]}}),
        ("review_qa", {"question": "q ?", "context": "ab", "answers": {"text": ["ab"], "answer_start": [0, 1]}}),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(name, row):
    with pytest.raises(ValueError, match=r"^set train row 7: [^\n]+$"):
        make_task(name).read_row(row, "set train row 7")


# --- where data come from ---


def test_published_files(tmp_path):
    folder = tmp_path / "semeval14_laptop" / "asc"
    folder.mkdir(parents=True)
    for part in ("train", "dev", "test"):
        entries = {
            str(i): {
                "sentence": f"{part} fan {i}",
                "term": "fan",
                "polarity": ("positive", "negative", "neutral")[i % 3],
            }
            for i in range(30)
        }
        (folder / f"{part}.json").write_text(json.dumps(entries))
    task = make_task("aspect_sentiment")
    data = task.load(TaskSource(data_dir=tmp_path))
    assert [one.row.pair for one in data.dev[:2]] == ["dev fan 0", "dev fan 1"]
    again = task.load(TaskSource(data_dir=tmp_path, resplit=True))
    assert [len(part) for part in again.named().values()] != [30, 30, 30]
    assert sum(len(part) for part in again.named().values()) == 90
    with pytest.raises(DataMissing, match=r"aspect_extraction: no folder semeval14_laptop/ae in"):
        make_task("aspect_extraction").load(TaskSource(data_dir=tmp_path))
    with pytest.raises(DataMissing, match="neither a data folder, nor a dataset"):
        task.load(TaskSource())


COLUMNS = {
    "review_qa": lambda i: {"question": "how ?", "context": f"fan {i} is loud", "answers": {
        "text": ["loud"], "answer_start": [len(f"fan {i} is ")]}},
    "aspect_extraction": lambda i: {"tokens": ["fan", str(i)], "tags": ["B", "O"]},
    "aspect_sentiment": lambda i: {"sentence": f"fan {i}", "term": "fan", "polarity": ["positive", "neutral"][i % 2]},
    "product_classification": lambda i: {"title": f"mug {i}", "category_path": ["Home", ["Mugs", "Pots"][i % 2]]},
    "attribute_extraction": lambda i: {"title": f"mug {i}", "attributes": [{"name": "no", "value": str(i)}]},
    "chinese_review_category": lambda i: {"text": f"r {i}", "category": "xy"[i % 2]},
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_documented_columns(name, tmp_path, oracle):
    rows = Dataset.from_list([COLUMNS[name](i) for i in range(12)])
    DatasetDict(train=rows, validation=rows, test=rows).save_to_disk(tmp_path / "set")
    task = make_task(name)
    data = task.load(TaskSource(dataset=str(tmp_path / "set")))
    assert [len(part) for part in data.named().values()] == [12, 12, 12]
    assert task.run("right", data, 0, TaskOptions()).metrics[task.metric] == 1.0


def rows_with(name, split, change, tmp_path):
    """A dataset of the task whose split has one changed row."""
    parts = {part: [COLUMNS[name](i) for i in range(12)] for part in ("train", "validation", "test")}
    parts[split] = change(parts[split])
    DatasetDict({part: Dataset.from_list(rows) for part, rows in parts.items()}).save_to_disk(tmp_path / "set")
    return TaskSource(dataset=str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("aspect_sentiment", "polarity", "good", r"set test row 3: the polarity 'good' is outside"),
        ("aspect_sentiment", "term", "screen", r"set test row 3: the sentence does not hold the term 'screen'"),
        ("aspect_extraction", "tags", ["B"], r"set test row 3: 2 words but 1 tags"),
        ("aspect_extraction", "tags", ["B", "A"], r"set test row 3: word 1 has the tag 'A'"),
        ("review_qa", "context", "fan is quiet", r"set test row 3: the answer 'loud' does not stand at 9"),
        ("product_classification", "category_path", ["Home", ""], r"set test row 3: the title is empty, or a level"),
        ("product_classification", "title", " ", r"set test row 3: the title is empty"),
        ("attribute_extraction", "title", "cup", r"set test row 3: the value '3' of 'no' is not in the title"),
        ("chinese_review_category", "category", None, r"set test row 3: no text or no category"),
    ],
)
def test_a_bad_row_is_named(name, key, value, message, tmp_path):
    source = rows_with(name, "test", lambda rows: [*rows[:3], {**rows[3], key: value}, *rows[4:]], tmp_path)
    with pytest.raises(ValueError, match=message):
        make_task(name).load(source)


def test_a_missing_column_is_named(tmp_path):
    Dataset.from_list([{"sentence": "fan"}] * 20).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"row 0: no term, polarity; the columns are sentence, term, polarity"):
        make_task("aspect_sentiment").load(TaskSource(dataset=str(tmp_path / "set")))


@pytest.mark.parametrize("name", ["aspect_sentiment", "product_classification", "chinese_review_category"])
def test_a_one_class_test_set_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path}/set: all 12 rows of the test split have the label"):
        make_task(name).load(rows_with(name, "test", lambda rows: [rows[0]] * 12, tmp_path))


def test_an_empty_split_is_refused(tmp_path):
    folder = tmp_path / "review_rc_laptop"
    folder.mkdir()
    for part in ("train", "dev", "test"):
        (folder / f"{part}.json").write_text(json.dumps({"data": []}))
    with pytest.raises(ValueError, match=f"^{folder}: the train split is empty"):
        make_task("review_qa").load(TaskSource(data_dir=tmp_path))


# --- the published data ---


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes", "labels"),
    [
        ("review_qa", (816, 199, 351), 0),
        ("aspect_extraction", (2_895, 150, 800), 3),
        ("aspect_sentiment", (2_163, 150, 638), 3),
        ("attribute_extraction", (None, None, 491), None),
    ],
)
def test_published_splits_are_kept(name, sizes, labels):
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the shared data is not on this machine")
    task = make_task(name)
    data = task.load(TaskSource(data_dir=DATA, budget="full"))
    found = [len(part) for part in data.named().values()]
    assert [size for size, wanted in zip(found, sizes, strict=True) if wanted is not None] == [
        wanted for wanted in sizes if wanted is not None
    ]
    assert labels is None or len(data.labels) == labels
    if name == "attribute_extraction":
        assert sum(found) == 1_452 + 491
        assert data.counts["values_without_place"] < 50


@pytest.mark.real_data
def test_offers_get_their_ancestors():
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the shared data is not on this machine")
    data = make_task("offer_classification").load(TaskSource(data_dir=DATA))
    leaves = {one.gold[-1] for one in data.train}
    assert len(leaves) == 10
    assert "Home & Garden > Kitchen & Dining > Kitchen Appliances > Fridge Freezers" in leaves
    products = [{one.key for one in part} for part in data.named().values()]
    assert not products[0] & products[2]


# --- with a model ---


def test_a_real_model_learns_and_is_kept(tmp_path):
    """The whole way: columns, byte-level BPE, word tags, dev choice, test figure, slices, and the model on disk."""
    rows = []
    for text in TEXTS:
        words = text.replace("?", " ?").replace(",", " ,").split()
        things = [word for word in words if word in THINGS]
        assert len(things) == 2
        rows.append({"tokens": words, "tags": ["B" if word in THINGS else "O" for word in words]})
    parts = {"train": rows, "validation": rows[::3], "test": rows[::2]}
    DatasetDict({part: Dataset.from_list(part_rows) for part, part_rows in parts.items()}).save_to_disk(
        tmp_path / "set"
    )
    task = make_task("aspect_extraction")
    data = task.load(TaskSource(dataset=str(tmp_path / "set")))
    options = TaskOptions(tuning=Tuning((3e-3,), (8,), 8), keep=tmp_path / "fitted")
    result = task.run(save_tiny(tmp_path / "model"), data, 0, options)
    assert result.metrics["f1"] > 0.9
    assert result.slices["typos"] < result.metrics["f1"]
    assert result.counts == {"train": len(rows), "dev": len(rows[::3]), "test": len(rows[::2])}
    labels = json.loads((tmp_path / "fitted" / "config.json").read_text())["id2label"]
    assert sorted(labels.values()) == ["B", "I", "O"]
