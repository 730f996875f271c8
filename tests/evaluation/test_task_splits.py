"""Splits: by hash, of published files and of datasets; nothing lost, nothing on two sides."""

from __future__ import annotations

import os

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from rexbert_hf.evaluation import task_splits
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.task import DataMissing
from rexbert_hf.evaluation.task_splits import Example, TaskData, dataset_examples, drawn, hash_split


def examples(count: int, group: int = 1) -> list[Example]:
    return [Example(Row(f"text {i}", label="a"), "a", f"key {i // group}") for i in range(count)]


def test_hash_split_loses_nothing_and_keeps_groups_together():
    all_ = examples(3_000, group=3)
    parts = hash_split(all_)
    assert sorted(one.row.text for part in parts for one in part) == sorted(one.row.text for one in all_)
    keys = [{one.key for one in part} for part in parts]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    # 1,000 groups: three standard deviations of a binomial share
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(part) / 3_000 - share) < 3 * (share * (1 - share) / 1_000) ** 0.5


def test_a_split_depends_on_the_key_alone():
    all_ = examples(200)
    backwards = hash_split(all_[::-1])
    assert [part[::-1] for part in backwards] == list(hash_split(all_))
    few = hash_split(all_[:50])
    assert all(one in whole for part, whole in zip(few, hash_split(all_), strict=True) for one in part)


def test_other_shares():
    train, dev, test = hash_split(examples(1_000), (0.9, 0.1, 0.0))
    assert test == []
    assert 60 < len(dev) < 140
    assert len(train) + len(dev) == 1_000
    assert hash_split([]) == ([], [], [])


def test_drawn_keeps_the_order_and_is_no_matter_of_the_split():
    all_ = examples(1_000)
    found = drawn(all_, 100)
    assert len(found) == 100
    assert found == [one for one in all_ if one in found]
    assert drawn(all_, 2_000) == all_
    assert drawn(found, 50) == drawn(all_, 50), "a smaller cap is a part of a larger one"
    # Test is the low end of the hash of the keys: the draw must take its low half and its high half alike.
    test = hash_split(examples(4_000))[2]
    low = hash_split(test, (0.0, 0.9, 0.1))[2]
    assert len(low) == pytest.approx(400, abs=60)
    assert sum(one in low for one in drawn(test, 200)) == pytest.approx(100, abs=3 * 50**0.5)


def test_resplit_and_caps():
    data = TaskData(examples(60), examples(20), examples(20), labels=("a",))
    again = data.resplit()
    assert sum(map(len, again.named().values())) == 100
    assert "split 7:1:2 by hash" in again.notes
    assert [len(part) for part in data.capped(10, 5, 30).named().values()] == [10, 5, 20]
    assert data.fingerprint() == TaskData(examples(60), examples(20), examples(20), labels=("a",)).fingerprint()
    assert data.fingerprint() != TaskData(examples(60), examples(20), examples(21), labels=("a",)).fingerprint()


def read(row, where):
    return Example(Row(row["text"], label=row["kind"], where=where), row["kind"], row["text"])


def test_datasets_with_class_names_and_split_names(tmp_path):
    features = Features(
        {"text": Value("string"), "kind": ClassLabel(names=["mug", "desk"]), "tags": List(ClassLabel(names=["O", "B"]))}
    )
    rows = {"text": ["a", "b"], "kind": [1, 0], "tags": [[0, 1], []]}
    made = Dataset.from_dict(rows, features=features)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "kept")
    seen = []
    found = dataset_examples(str(tmp_path / "kept"), lambda row, where: seen.append(row) or read(row, where))
    assert [[one.gold for one in part] for part in found.values()] == [["desk", "mug"]] * 3
    assert seen[0]["tags"] == ["O", "B"]
    assert found["test"][1].row.where == f"{tmp_path / 'kept'} test row 1"


def test_rows_without_a_class_and_classes_within_objects(tmp_path):
    kind = ClassLabel(names=["mug", "desk"])
    features = Features({"text": Value("string"), "kind": kind, "tags": List(kind), "more": List({"kind": kind})})
    rows = [
        {"text": "a", "kind": -1, "tags": [1, None], "more": [{"kind": 0}]},
        {"text": "b", "kind": 1, "tags": None, "more": None},
    ]
    DatasetDict(test=Dataset.from_list(rows, features=features)).save_to_disk(tmp_path / "kept")
    seen = []
    dataset_examples(str(tmp_path / "kept"), lambda row, where: seen.append(row) or read(row, where))
    assert seen == [
        {"text": "a", "kind": None, "tags": ["desk", None], "more": [{"kind": "mug"}]},
        {"text": "b", "kind": "desk", "tags": None, "more": None},
    ]


def test_missing_splits_come_from_the_hash(tmp_path):
    made = Dataset.from_dict({"text": [f"t{i}" for i in range(400)], "kind": ["mug"] * 400})
    (tmp_path / "one").mkdir()
    made.to_parquet(tmp_path / "one" / "train.parquet")
    one = dataset_examples(str(tmp_path / "one"), read)
    assert [round(len(part) / 400, 1) for part in one.values()] == [0.7, 0.1, 0.2]
    (tmp_path / "two").mkdir()
    made.to_parquet(tmp_path / "two" / "train.parquet")
    made.select(range(7)).to_parquet(tmp_path / "two" / "test.parquet")
    two = dataset_examples(str(tmp_path / "two"), read)
    assert len(two["test"]) == 7
    assert len(two["train"]) + len(two["dev"]) == 400
    assert 20 <= len(two["dev"]) <= 60
    named = dataset_examples(str(tmp_path / "two"), read, {"test": "dev", "train": "test"})
    assert [len(part) for part in named.values()] == [0, 7, 400]


def test_an_empty_split_is_no_missing_one(tmp_path, monkeypatch):
    some = Dataset.from_dict({"text": [f"t{i}" for i in range(40)], "kind": ["mug"] * 40})
    for empty in ("test", "validation"):
        parts = {**dict.fromkeys(("train", "validation", "test"), some), empty: some.select([])}
        DatasetDict(parts).save_to_disk(tmp_path / empty)
        with pytest.raises(DataMissing, match=rf"{empty} cannot be loaded \(one of its splits is empty: give it rows"):
            dataset_examples(str(tmp_path / empty), read)
        monkeypatch.setattr(task_splits, "load_dataset", lambda *_, **__: DatasetDict(parts))  # noqa: B023
        with pytest.raises(ValueError, match=f"^shop/rows: the {empty} split is empty: give it rows, or leave it out$"):
            dataset_examples("shop/rows", read)


def test_splits_of_other_names_are_told(tmp_path, caplog):
    some = Dataset.from_dict({"text": [f"t{i}" for i in range(40)], "kind": ["mug"] * 40})
    DatasetDict(train=some, eval=some).save_to_disk(tmp_path / "set")
    assert sum(map(len, dataset_examples(str(tmp_path / "set"), read).values())) == 40
    assert "it has no test split, so its rows are divided by hash; eval is not read" in caplog.text
    caplog.clear()
    DatasetDict(train=some, test=some, more=some).save_to_disk(tmp_path / "whole")
    dataset_examples(str(tmp_path / "whole"), read)
    assert not caplog.text


def test_a_changed_file_is_read_again_whatever_its_time(tmp_path):
    for kind in ("mug", "cup"):
        (tmp_path / "train.csv").write_text("text,kind\n" + "".join(f"t{i},{kind}\n" for i in range(40)))
        os.utime(tmp_path / "train.csv", (1_000_000_000, 1_000_000_000))
        assert {one.gold for one in dataset_examples(str(tmp_path), read)["train"]} == {kind}


def test_wrong_files_are_one_line(tmp_path):
    (tmp_path / "train.csv").write_text("text,kind\nt,mug\n")
    with pytest.raises(DataMissing, match=r"train.csv cannot be loaded \(it is a file: give its folder\)"):
        dataset_examples(str(tmp_path / "train.csv"), read)
    (tmp_path / "test.csv").write_text("words,label\nt,mug\nu,cup\n")
    with pytest.raises(DataMissing, match=r"must have the same columns, [^\n]+'words'[^\n]+test.csv") as raised:
        dataset_examples(str(tmp_path), read)
    assert "\n" not in str(raised.value)
    (tmp_path / "test.csv").write_text("words,label\nt,mug\n")  # one row takes another way through `datasets`
    with pytest.raises(DataMissing, match=r"\(CastError: Couldn't cast words: [^\n]+ column names don't match\)$"):
        dataset_examples(str(tmp_path), read)
    (tmp_path / "test.csv").write_text('text,kind\n"t,mug\n')
    with pytest.raises(DataMissing, match=r"cannot be loaded \(ParserError: [^\n]+\)"):
        dataset_examples(str(tmp_path), read)


def test_a_dataset_that_is_not_there(tmp_path):
    with pytest.raises(DataMissing, match="cannot be loaded"):
        dataset_examples(str(tmp_path / "nothing"), read)
