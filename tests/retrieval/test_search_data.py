"""Reading catalogues and judged pairs: the split by query, grades, groups, and what bad rows get."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rexbert_hf.catalog import SPLITS, load_sample, split_of
from rexbert_hf.retrieval.training import judged_pairs, search_data
from rexbert_hf.retrieval.training.distil import distil_texts
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.evaluator import search_metrics
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.search_batches import RowSettings, SearchBatches
from rexbert_hf.retrieval.training.search_data import (
    TEST,
    TRAIN,
    VALIDATION,
    SearchDataSettings,
    load_search_data,
    text_groups,
)

HOMEDEPOT = Path(__file__).parents[3] / "shared" / "data" / "homedepot" / "train.csv.zip"


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def settings_of(tmp_path, pairs, products, **more):
    return SearchDataSettings(
        pairs=write(tmp_path / "pairs.csv", *pairs),
        products=write(tmp_path / "products.csv", *products),
        pair_columns={"query": "query", "product_id": "id", more.pop("kind", "label"): "label"},
        product_columns={"product_id": "id", "title": "title", "brand": "brand"},
        **more,
    )


def test_the_published_split_is_the_sha1_of_the_query_as_it_stands_modulo_ten():
    data = load_search_data(SearchDataSettings(sample_size=200, split_rule="sha1_mod_10"))
    for query, split in zip(data.queries, data.splits, strict=True):
        bucket = int(hashlib.sha1(query.encode()).hexdigest(), 16) % 10
        assert split == (TEST if bucket < 2 else VALIDATION if bucket == 2 else TRAIN)
    counts = np.bincount(data.splits, minlength=3) / len(data.splits)
    assert counts[TEST] == pytest.approx(0.2, abs=0.12)  # four standard deviations of 120 queries


def test_queries_are_split_by_the_hash_that_all_recipes_share():
    data = load_search_data(SearchDataSettings(sample_size=200))
    assert [SPLITS[split] for split in data.splits] == [split_of(query, 0.2) for query in data.queries]
    larger = load_search_data(SearchDataSettings(sample_size=200, held_out=0.5))
    assert set(data.of(TEST)) < set(larger.of(TEST))


def test_forms_of_a_query_are_one_query(tmp_path):
    pairs = ["query,id,label", "Oak Desk,a,E", "oak  desk,b,Exact", "OAK DESK,a,I", "pot,b,E"]
    settings = settings_of(tmp_path, pairs, ["id,title,brand", "a,mug,x", "b,pot,x"])
    data = load_search_data(settings)
    assert data.queries == ["Oak Desk", "pot"]
    assert (data.judged.offsets.tolist(), data.judged.grades.tolist()) == ([0, 2, 3], [1.0, 1.0, 1.0])
    settings.split_rule = "sha1_mod_10"
    # As it stands each form has a hash of its own; all are where the one that is held out most is.
    data = load_search_data(settings)
    assert data.queries == ["Oak Desk", "oak  desk", "OAK DESK", "pot"]
    digits = [int(hashlib.sha1(query.encode()).hexdigest(), 16) % 10 for query in data.queries[:3]]
    most = max(TEST if digit < 2 else VALIDATION if digit == 2 else TRAIN for digit in digits)
    assert data.splits[:3].tolist() == [most] * 3
    assert digits[1] != digits[2], "another example is needed"
    assert most != TRAIN, "another example is needed"


def test_labels_become_grades_and_random_negatives_are_not_judgements(tmp_path):
    pairs = ["query,id,label", "mug,a,E", "mug,b,S", "mug,c,C", "mug,d,I", "pot,a,1", "pot,b,0", "pot,c,-1"]
    products = ["id,title,brand", *[f"{i},title {i},x" for i in "abcd"]]
    data = load_search_data(settings_of(tmp_path, pairs, products))
    assert data.judged.grades.tolist() == [1.0, 0.66, 0.33, 0.0, 1.0, 0.0]
    assert data.judged.count(1.0).tolist() == [1, 1]


def test_numbers_stay_and_2_33_is_2_33(tmp_path):
    products = ["id,title,brand", "a,mug,x", "b,pot,x"]
    rows = ["query,id,label", "mug,a,2.33", "mug,b,2"]
    data = load_search_data(settings_of(tmp_path, rows, products, kind="relevance", relevant=2.33))
    assert data.judged.count(data.relevant).tolist() == [1]


def test_bad_rows_are_counted_and_products_without_title_are_described(tmp_path, caplog):
    pairs = ["query,id,label", ",a,E", "   ,a,E", "mug,nowhere,E", "mug,a,", "mug,a,E", "pot  lid,b,E"]
    products = ["id,title,brand", "a,,Ostwick", "b,\U0001f600 \u05e1\u05d9\u05e8,x", "c,,", "a,again,x"]
    with caplog.at_level(logging.WARNING):
        data = load_search_data(settings_of(tmp_path, pairs, products))
    assert data.queries == ["mug", "pot  lid"]
    assert dict(zip(data.product_ids, data.texts, strict=True))["a"] == "Ostwick"
    assert dict(zip(data.product_ids, data.texts, strict=True))["c"] == ""
    said = caplog.text
    for part in ("2 of 6 pairs have an empty query", "1 of 6 pairs have an unknown product", "no label", "no text"):
        assert part in said
    assert "repeat a product id" in said


def test_titles_are_the_products_own_whatever_its_text_is_made_of(tmp_path):
    products = ["id,title,brand", "a,Red mug,Ostwick", "b,,Ostwick"]
    plain = load_search_data(settings_of(tmp_path, ["query,id,label", "mug,a,E"], products))
    assert plain.titles == plain.texts == ["Red mug", "Ostwick"]
    more = {"text_fields": ["brand", "title"], "field_names": True}
    data = load_search_data(settings_of(tmp_path, ["query,id,label", "mug,a,E"], products, **more))
    assert data.texts[0] != data.titles[0]
    assert data.titles == plain.titles
    made_up = SearchBatches(data, "ranking", RowSettings(batch_size=4, made_up=0.5), 20)
    drawn = {word for step in range(20) for text in made_up[step].columns["query"] for word in text.split()}
    assert drawn <= {"red", "mug", "ostwick"}
    assert distil_texts(DistilSettings(teacher="x"), data)[0][1:] in (["red mug", "ostwick"], ["ostwick", "red mug"])
    # Titles decide a run; in the plain case they are the texts, and older runs stay what they are.
    assert dataclasses.replace(data, titles=data.texts).fingerprint != data.fingerprint
    assert dataclasses.replace(plain, titles=[*plain.texts]).fingerprint == plain.fingerprint


def test_own_split_column_decides(tmp_path):
    products = ["id,title,brand", "a,mug,x"]
    pairs = ["query,id,label,part", "mug,a,E,test", "pot,a,E,validation", "pan,a,E,train"]
    settings = settings_of(tmp_path, pairs, products)
    settings.pair_columns["split"] = "part"
    assert load_search_data(settings).splits.tolist() == [TEST, VALIDATION, TRAIN]


def test_what_build_pairs_writes_is_read_with_its_own_split(tmp_path):
    schema = {"query": ["mug", "mug", "pot"], "product_id": ["P000001", "P000002", "P000003"]}
    labels = pa.array([1, -1, 0], type=pa.int8())
    (tmp_path / "pairs").mkdir()
    table = pa.table({**schema, "label": labels, "split": ["train", "train", "test"]})
    pq.write_table(table, tmp_path / "pairs" / "train.parquet")
    load_sample("products", size=30).to_parquet(str(tmp_path / "products.parquet"))
    settings = SearchDataSettings(pairs="pairs", products="products.parquet", data_dir=str(tmp_path))
    data = load_search_data(settings)
    assert len(data.texts) == 30
    assert (data.queries, data.splits.tolist()) == (["mug", "pot"], [TRAIN, TEST])
    assert data.judged.grades.tolist() == [1.0, 0.0]


def test_what_is_neither_is_known_and_changes_no_figure(tmp_path):
    pairs = ["query,id,label", "mug,a,1", "mug,b,0", "pot,c,1", "pot,d,-1"]
    more = ["MUG,d,-2", "pot,a,-2", "pot,a,-2", "lamp,a,-2", "mug,zz,-2", ",a,-2"]
    products = ["id,title,brand", *[f"{i},title {i},x" for i in "abcd"]]
    plain = load_search_data(settings_of(tmp_path, pairs, products))
    data = load_search_data(settings_of(tmp_path, [*pairs[:1], more[1], *pairs[1:], *more], products))
    # No query comes of it alone; a pair stands once.
    assert data.queries == plain.queries == ["mug", "pot"]
    assert data.neither.tolist() == [[0, 3], [1, 0]]
    assert [data.known(query).tolist() for query in (0, 1)] == [[0, 1, 3], [2, 0]]
    for name in ("offsets", "products", "grades"):
        assert getattr(data.judged, name).tolist() == getattr(plain.judged, name).tolist()
    ranked = np.array([[3, 0, 1, 2], [0, 3, 2, 1]])
    found, wanted = (search_metrics(ranked, one.judged, one.relevant) for one in (data, plain))
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in wanted.items()
    }
    assert found["judged@10"].tolist() == [0.5, 0.25]
    assert data.fingerprint != plain.fingerprint
    assert dataclasses.replace(data, neither=plain.neither).fingerprint == plain.fingerprint


def test_rows_are_read_in_batches_and_random_ones_are_never_made_texts(tmp_path, monkeypatch):
    """Batches of two: numbers of rows and of queries go on, what is neither may come before its query is judged."""
    seen = []
    stock = judged_pairs._Reader._add
    monkeypatch.setattr(judged_pairs, "_BATCH_ROWS", 2)
    monkeypatch.setattr(judged_pairs._Reader, "_add", lambda self, *row: (seen.append(row[0]), stock(self, *row)))
    pairs = ["query,id,label,part"]
    pairs += ["mug,d,-2,test", "mug,a,1,test", "pot,b,-1,train", "lamp,c,-1,train", "pot,c,0,train", "MUG,b,0,test"]
    settings = settings_of(tmp_path, pairs, ["id,title,brand", *[f"{i},title {i},x" for i in "abcd"]])
    settings.pair_columns["split"] = "part"
    data = load_search_data(settings)
    assert seen == [0, 1, 4, 5]
    assert (data.queries, data.splits.tolist()) == (["mug", "pot"], [TEST, TRAIN])
    assert data.judged.offsets.tolist() == [0, 2, 3]
    assert (data.judged.products.tolist(), data.judged.grades.tolist()) == ([0, 1, 2], [1.0, 0.0, 0.0])
    assert data.neither.tolist() == [[0, 3]]
    write(tmp_path / "pairs.csv", *pairs, "pan,a,1,nowhere")
    with pytest.raises(ValueError, match=r"pairs.csv, row 6: the split 'nowhere'"):
        load_search_data(settings)


def test_a_full_folder_of_temporary_files_is_named_and_not_the_runs(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(search_data, "_read_pairs", full)
    run = FinetuneSettings(str(tmp_path / "run"), data=SearchDataSettings(sample_size=30))
    with pytest.raises(OSError, match="make room there, or set TMPDIR") as caught:
        finetune_search(run)
    place = tempfile.gettempdir()
    assert str(caught.value).startswith(f"{place}: no room for data.pairs while they are read (No space left")


def test_an_endless_relevance_is_still_an_error(tmp_path):
    rows, products = ["query,id,label", "mug,a,inf", "mug,b,1"], ["id,title,brand", "a,mug,x", "b,pot,x"]
    with pytest.raises(ValueError, match="a grade is NaN or infinite"):
        load_search_data(settings_of(tmp_path, rows, products, kind="relevance"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [(["mug,a,X"], "data.pairs: unknown label 'X'"), (["mug,z,E"], "no usable pair is left")],
)
def test_hopeless_pairs_are_one_line_errors(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_search_data(settings_of(tmp_path, ["query,id,label", *rows], ["id,title,brand", "a,mug,x"]))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="held_out is a share"):
        SearchDataSettings(held_out=1.0)
    with pytest.raises(ValueError, match=r"data\.pairs"):
        SearchDataSettings(products="x.csv")
    with pytest.raises(ValueError, match="must name query, product_id"):
        SearchDataSettings(pairs="x.csv", products="y.csv", pair_columns={"query": "q"})


def test_groups_are_equal_texts():
    assert text_groups(["A b", "a  B", "c"]).tolist() == [0, 0, 1]


@pytest.mark.real_data
@pytest.mark.skipif(not HOMEDEPOT.exists(), reason="the shared data are not here")
def test_home_depot_protocol():
    settings = SearchDataSettings(
        pairs=str(HOMEDEPOT),
        encoding="latin-1",
        pair_columns={"query": "search_term", "product_id": "product_uid", "relevance": "relevance"},
        product_columns={"product_id": "product_uid", "title": "product_title"},
        relevant=2.33,
        split_rule="sha1_mod_10",
    )
    data = load_search_data(settings)
    assert len(data.texts) == 54_667
    assert len(data.of(TEST)) == 2_209
    for query, split in zip(data.queries, data.splits, strict=True):
        digit = int(hashlib.sha1(query.encode()).hexdigest(), 16) % 10
        assert split == (TEST if digit < 2 else VALIDATION if digit == 2 else TRAIN)


@pytest.mark.parametrize(
    "products", [["product_id,title,price", "1,Mug,3", "2,Plate,"], ["title,product_id", "Mug,1", "Plate,2"]]
)
def test_a_catalogue_has_the_columns_it_has(tmp_path, products):
    pairs = write(tmp_path / "pairs.csv", "query,product_id,label", "mug,1,E", "plate,2,E")
    data = load_search_data(SearchDataSettings(pairs=pairs, products=write(tmp_path / "p.csv", *products)))
    assert (data.product_ids, data.texts) == (["1", "2"], ["Mug", "Plate"])


@pytest.mark.parametrize(
    ("products", "problem"),
    [
        (["id,title", "1,Mug"], r"p\.csv: no column 'product_id'; it has id, title"),
        (["product_id,name", "1,Mug"], r"p\.csv: no product has an id and a text: map title, brand"),
    ],
)
def test_a_catalogue_needs_ids_and_texts(tmp_path, products, problem):
    pairs = write(tmp_path / "pairs.csv", "query,product_id,label", "mug,1,E")
    with pytest.raises(ValueError, match=problem):
        load_search_data(SearchDataSettings(pairs=pairs, products=write(tmp_path / "p.csv", *products)))
