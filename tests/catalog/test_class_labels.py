"""Class numbers of `datasets` come out as names from every reader."""

from __future__ import annotations

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from rexbert_hf.catalog import read_label, read_records, record_types
from rexbert_hf.corpus import DocumentSource, StageReport, read_documents

KIND = ClassLabel(names=["hobby", "shop"])
FEATURES = Features({"text": Value("string"), "domain": KIND, "tags": List(KIND), "more": {"kind": KIND}})
ROWS = [
    {"text": "a", "domain": 1, "tags": [0, 1], "more": {"kind": 0}},
    {"text": "b", "domain": -1, "tags": None, "more": None},
]
NAMED = [
    {"text": "a", "domain": "shop", "tags": ["hobby", "shop"], "more": {"kind": "hobby"}},
    {"text": "b", "domain": "", "tags": None, "more": None},
]


@pytest.fixture
def parquet(tmp_path):
    """A file that `datasets` wrote, alone in its folder."""
    path = tmp_path / "data/a.parquet"
    path.parent.mkdir()
    Dataset.from_list(ROWS, features=FEATURES).to_parquet(path)
    return path


def domains_of(source: DocumentSource) -> list[str]:
    return [document.domain for document in read_documents([source], StageReport("test", key=""))]


def test_a_parquet_file_of_datasets_is_read_by_name(parquet):
    assert read_records(parquet).to_list() == NAMED
    assert read_records(parquet, {"kind": "domain"})["kind"][:] == ["shop"]  # a row without a class is empty


def test_who_asks_for_numbers_gets_those_of_the_classes(parquet, caplog):
    other = parquet.parent / "b.parquet"
    Dataset.from_list(ROWS, features=FEATURES).to_parquet(other)
    wanted = Features({"title": Value("string"), "grade": Value("float64"), "kind": Value("string")})
    with caplog.at_level(logging.WARNING):
        read = read_records([parquet, other], {"title": "text", "grade": "domain", "kind": "domain"}, features=wanted)
    assert (read["grade"][:], read["kind"][:]) == ([1.0, None] * 2, ["shop", None] * 2)
    assert caplog.messages == [
        f"{parquet}: column 'domain' has classes ('hobby', 'shop') and 'grade' wants numbers: it gets those of the "
        "classes"
    ]


def test_classes_whose_names_are_numbers_are_these_numbers(tmp_path):
    stars = Features({"stars": ClassLabel(names=["1", "2", "3", "4", "5"])})
    Dataset.from_dict({"stars": [0, 2, 4]}, features=stars).to_parquet(tmp_path / "a.parquet")
    for kind in ("float64", "int32"):
        wanted = Features({"rating": Value(kind)})
        assert read_records(tmp_path / "a.parquet", {"rating": "stars"}, features=wanted)["rating"][:] == [1, 3, 5]


def test_judged_pairs_whose_classes_are_labels_by_number_alone(tmp_path, caplog):
    def labels_of(*names):
        text = Value("string")
        types = Features({"query": text, "product_id": text, "label": ClassLabel(names=names)})
        pairs = {"query": ["mug"] * 2, "product_id": ["1", "2"], "label": [0, 1]}
        Dataset.from_dict(pairs, features=types).to_parquet(tmp_path / "a.parquet")
        return read_records(tmp_path / "a.parquet", types=record_types("query_products"))["label"][:]

    with caplog.at_level(logging.WARNING):
        assert [read_label(label) for label in labels_of("irrelevant", "relevant")] == ["0", "1"]
    assert "has classes ('irrelevant', 'relevant') and 'label' wants numbers" in caplog.text
    assert labels_of("Irrelevant", "Exact") == ["Irrelevant", "Exact"]
    assert labels_of("relevant", "irrelevant") == ["relevant", "irrelevant"]  # the numbers say the contrary


def test_a_label_that_is_none_says_how_classes_are_read():
    with pytest.raises(ValueError, match=r"unknown label 'relevant': .* classes of `datasets` are read by name"):
        read_label("relevant")


def test_domains_of_documents_are_names(parquet):
    packed = parquet.parent.parent / "b.parquet.gz"
    packed.write_bytes(gzip.compress(parquet.read_bytes()))
    for path in (parquet, packed):
        assert domains_of(DocumentSource(str(path), domain_from_folder=False)) == ["shop", "unknown"]
    for streaming in (True, False):
        assert domains_of(DocumentSource(dataset=str(parquet.parent), streaming=streaming)) == ["shop", "unknown"]


def test_numbers_of_columns_that_are_no_longer_classes_stay(tmp_path, caplog):
    note = json.dumps({"info": {"features": FEATURES.to_dict()}})
    table = pa.table({"text": ["a"], "domain": ["hobby"], "tags": [[1]]})
    path = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), path)
    assert read_records(path).to_list() == [{"text": "a", "domain": "hobby", "tags": ["shop"]}]
    pq.write_table(table.replace_schema_metadata({"huggingface": note.replace("List", "Nested")}), path)
    with caplog.at_level(logging.WARNING):
        assert read_records(path).to_list() == [{"text": "a", "domain": "hobby", "tags": [1]}]
    assert "of column 'tags' cannot be read (ValueError: Feature type 'Nested' not found" in caplog.text


def test_a_column_that_is_not_understood_leaves_the_names_of_the_others(tmp_path, caplog):
    columns = {"picture": {"_type": "Hologram"}, "tags": {"_type": "List", "feature": {"_type": "ClassLabel"}}}
    note = json.dumps({"info": {"features": columns | Features({"domain": KIND}).to_dict()}})
    table = pa.table({"domain": [1], "tags": [[0]], "picture": ["x"]})
    for name in ("a", "b"):
        pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / f"{name}.parquet")
    with caplog.at_level(logging.WARNING):
        assert read_records(tmp_path).to_list() == [{"domain": "shop", "tags": [0], "picture": "x"}] * 2
    [told] = caplog.messages  # of columns without classes nothing is missed, and two files have one note
    assert told.startswith("the names of classes of column 'tags' cannot be read (ValueError: ")
    assert "\n" not in told
