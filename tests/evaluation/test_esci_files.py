"""ESCI's published files, and data sets that spell their columns in either way."""

from __future__ import annotations

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from rexbert_hf.evaluation.esci import EsciSimilarity
from rexbert_hf.evaluation.esci_files import EXAMPLES, PRODUCTS
from rexbert_hf.evaluation.glue import CoLA
from rexbert_hf.evaluation.masked_recovery import MaskedRecovery
from rexbert_hf.evaluation.search_data import ESCI_SCALE, load_protocol
from rexbert_hf.evaluation.task import TaskSource
from rexbert_hf.retrieval.pairs.events import QuerySplit
from rexbert_hf.retrieval.training.search_data import VALIDATION

VALIDATED = next(f"rug {i}" for i in range(100) if QuerySplit(held_out=0.2).of(f"rug {i}") == "validation")


def write_esci(folder):
    """Two test queries, and what must not be read: another locale, the large version."""
    rows = [
        ("lamp", "a", "us", "E", 1, "test"), ("lamp", "b", "us", "S", 1, "test"), ("mug", "b", "us", "I", 1, "test"),
        ("lamp", "c", "us", "E", 0, "test"), ("lampe", "a", "es", "E", 1, "test"), ("desk", "c", "us", "E", 1, "train"),
        (VALIDATED, "a", "us", "C", 1, "train"), *((f"desk {i}", "c", "us", "I", 1, "train") for i in range(30)),
    ]  # fmt: skip
    names = ("query", "product_id", "product_locale", "esci_label", "small_version", "split")
    pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), folder / EXAMPLES)
    products = {"product_id": ["a", "b", "c", "a"], "product_locale": ["us", "us", "us", "es"],
                "product_title": ["Red lamp", "Shade", "Oak desk", "Lámpara"],
                "product_description": ["Bright", None, "Heavy", "x"]}  # fmt: skip
    pq.write_table(pa.table(products), folder / PRODUCTS)
    return TaskSource(dataset=str(folder))


def test_the_published_pair_of_files_serves_three_tasks(tmp_path):
    source = write_esci(tmp_path)
    protocol = load_protocol(source)
    assert (protocol.query_texts, protocol.scale) == (["lamp"], ESCI_SCALE)
    assert sorted(protocol.product_texts) == ["Oak desk", "Red lamp", "Shade"]
    assert protocol.judged.grades.tolist() == [1.0, 0.66]
    assert protocol.data.queries[protocol.data.of(VALIDATION, with_relevant=False)[0]] == VALIDATED
    data = EsciSimilarity().load(source)
    assert [(one.row.text, one.row.pair, one.gold) for one in data.test] == [
        ("lamp", "Red lamp", 1.0), ("lamp", "Shade", 0.66), ("mug", "Shade", 0.0),
    ]  # fmt: skip
    assert len(data.train) + len(data.dev) == 32
    assert sorted(MaskedRecovery().load(source)) == ["Red lamp Bright", "Shade"]
    pq.write_table(pa.table({"query": ["lamp"]}), tmp_path / EXAMPLES)
    with pytest.raises(ValueError, match=r"examples.parquet: no column esci_label"):
        EsciSimilarity().load(source)


def rewritten(path, change):
    """A file of `write_esci` with other rows."""
    pq.write_table(pa.Table.from_pylist(change(pq.read_table(path).to_pylist())), path)


def test_rows_are_numbered_as_in_the_file(tmp_path):
    """Another locale and the large version stand before the wrong label."""
    source = write_esci(tmp_path)
    rewritten(tmp_path / EXAMPLES, lambda rows: [*rows[3:5], rows[0], {**rows[1], "esci_label": "X"}])
    with pytest.raises(ValueError, match=r"examples.parquet, row 3: the label 'X' is outside"):
        EsciSimilarity().load(source)


def test_examples_without_a_product_are_counted(tmp_path, caplog):
    source = write_esci(tmp_path)
    rewritten(tmp_path / EXAMPLES, lambda rows: [*rows, {**rows[0], "product_id": "lost"}])
    assert len(EsciSimilarity().load(source).test) == 3
    assert "1 of 36 examples are left out" in caplog.text


def test_a_product_that_comes_twice_is_refused(tmp_path):
    """It would double its examples."""
    source = write_esci(tmp_path)
    rewritten(tmp_path / PRODUCTS, lambda rows: [*rows, {**rows[1], "product_title": "Shade again"}])
    for load in (EsciSimilarity().load, load_protocol, MaskedRecovery().load):
        with pytest.raises(ValueError, match=r"products.parquet, row 4: the product b \(us\) comes a second time"):
            load(source)


def test_search_takes_either_spelling_and_no_other_scale(tmp_path):
    def protocol(grade_column, grades):
        with (tmp_path / "pairs.csv").open("w", newline="") as file:
            rows = [("lamp", "a", "Red lamp", grades[0], "test"), ("rug", "c", "Rug", grades[1], "train")]
            csv.writer(file).writerows([("query", "product_id", "product_title", grade_column, "split"), *rows])
        return load_protocol(TaskSource(dataset=str(tmp_path / "pairs.csv")))

    assert protocol("esci_label", "ES").product_texts == ["Red lamp", "Rug"]
    assert protocol("relevance", (3, 1)).query_texts == ["lamp"]
    with pytest.raises(ValueError, match=r"pairs.csv, row 1: the relevance 4 is outside 1 \(irrelevant\) to 3"):
        protocol("relevance", (3, 4))
    with pytest.raises(ValueError, match=r"pairs.csv, row 0: the relevance 0 is outside"):
        protocol("relevance", (0, 1))
    with pytest.raises(ValueError, match=r"pairs.csv, row 1: the label 'X' is outside the set"):
        protocol("label", "EX")
    for number in ("1", "0", "-1"):
        with pytest.raises(ValueError, match=rf"pairs.csv, row 1: the label '{number}' is outside the set"):
            protocol("label", ("E", number))


def test_pairs_without_a_split_of_their_own_are_told(tmp_path, caplog):
    rows = {"query": [f"lamp {i}" for i in range(60)], "product_id": [str(i) for i in range(60)],
            "title": [f"Lamp {i}" for i in range(60)], "label": ["E"] * 60}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "test.parquet")
    assert load_protocol(TaskSource(dataset=str(tmp_path / "test.parquet"))).counts["train_queries"] > 30
    assert "test.parquet: no column split, so its queries are divided .8, .1, .1 by hash" in caplog.text
    Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="saved: search reads files of pairs, not what save_to_disk wrote"):
        load_protocol(TaskSource(dataset=str(tmp_path / "saved")))


def test_glue_can_be_pinned():
    assert CoLA()._hub_name("nyu-mll/glue@abc") == "nyu-mll/glue:cola@abc"
    assert CoLA()._hub_name("nyu-mll/glue") == "nyu-mll/glue:cola"
    assert CoLA()._hub_name("me/glue:mine@abc") == "me/glue:mine@abc"
