"""Query to category: the suggestions' form, small categories, figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from rexbert_hf.evaluation.query_category import FILE, QueryCategory
from rexbert_hf.evaluation.task import DataMissing, TaskSource


def suggestion(query, categories):
    found = [{"value": name, "count": count} for name, count in categories]
    facets = {"exact_matches": {"hierarchicalCategories.lvl0": found}}
    return {"query": query, "instant_search": {"facets": facets}}


def write(folder, rows):
    (folder / "algolia").mkdir(exist_ok=True)
    (folder / "algolia" / FILE).write_text(json.dumps(rows), encoding="utf-8")


def test_labels_that_training_never_shows_are_told(tmp_path, caplog):
    """A slip of the pen in the test file must not look like a hard task."""
    for name, rows in (
        ("train", [f"lamp {i},{('Light', 'Home')[i % 2]}" for i in range(60)]),
        ("test", ["red lamp,Light", "oak desk,Hmoe", "x,Hmoe"]),
    ):
        (tmp_path / f"{name}.csv").write_text("\n".join(["query,category", *rows]))
    data = QueryCategory().load(TaskSource(dataset=str(tmp_path)))
    assert (len(data.test), data.counts["unlearnt_labels"]) == (3, 2)
    said = f"2 test examples have a label that no training example has ('Hmoe', as {tmp_path} test row 1)"
    assert data.notes == (said,)
    assert f"query_category: {said}" in caplog.text


def test_the_category_of_most_hits_counts(tmp_path):
    rows = [suggestion(f"query {i}", [("Audio", 3), ("Cameras", 5 * (i % 2))]) for i in range(200)]
    rows += [suggestion("lonely", [("Paper", 1)]), suggestion("nothing", [])]
    write(tmp_path, rows)
    task = QueryCategory()
    data = task.load(TaskSource(data_dir=tmp_path))
    assert data.labels == ("Audio", "Cameras")
    assert dict(data.counts) == {"rare_category": 1, "without_category": 1}
    every = [one for part in data.named().values() for one in part]
    assert len(every) == 200
    assert all(one.gold == ("Audio", "Cameras")[int(one.row.text.split()[1]) % 2] for one in every)
    gold = [data.labels.index(one.gold) for one in data.test]
    said = np.random.default_rng(0).integers(0, 2, len(gold))
    statistics, figures = task.measure(data.test, said, data)
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(gold, said), abs=1e-9)
    assert figures["macro_f1"] == pytest.approx(sk.f1_score(gold, said, average="macro"), abs=1e-9)
    assert task.score(statistics) == pytest.approx(figures["accuracy"], abs=1e-9)


def test_wrong_files_are_one_line(tmp_path):
    with pytest.raises(DataMissing, match="query_category: no folder algolia"):
        QueryCategory().load(TaskSource(data_dir=tmp_path))
    write(tmp_path, [suggestion("a", [("X", 1)]), {"query": "b"}])
    with pytest.raises(ValueError, match=r"json, row 1: no instant_search.facets.exact_matches"):
        QueryCategory().load(TaskSource(data_dir=tmp_path))
    nameless = suggestion("b", [("X", 1)])
    del nameless["query"]
    write(tmp_path, [suggestion("a", [("X", 1)]), nameless])
    with pytest.raises(ValueError, match=r"json, row 1: query None and category 'X' must be texts"):
        QueryCategory().load(TaskSource(data_dir=tmp_path))
    for rows in (7, {"rows": []}):
        write(tmp_path, rows)
        with pytest.raises(ValueError, match=r"json: no list of suggestions"):
            QueryCategory().load(TaskSource(data_dir=tmp_path))
    write(tmp_path, [suggestion("a", [("X", 1)])] * 20)
    with pytest.raises(ValueError, match="1 categories have 10 queries or more, 2 are needed"):
        QueryCategory().load(TaskSource(data_dir=tmp_path))
    (tmp_path / "algolia" / FILE).write_text("[{", encoding="utf-8")
    with pytest.raises(ValueError, match="no JSON"):
        QueryCategory().load(TaskSource(data_dir=tmp_path))


def test_the_sample_shop_has_departments():
    data = QueryCategory().load(TaskSource(sample=True))
    assert len(data.labels) > 3
    assert {one.gold for one in data.test} <= set(data.labels)
