"""Lists of records in all the forms that tools write, from text to pandas."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rexbert_hf.catalog import PRODUCT, product_text, read_records, record_types
from rexbert_hf.catalog.columns import as_text, is_missing
from rexbert_hf.catalog.nested import attribute_pairs, path_levels, product_ids

PAIRS = [("colour", "red"), ("size", "4")]


@pytest.mark.parametrize(
    "value",
    [
        ["B01", "12"], ("B01", 12), np.array(["B01", "12"]), '["B01", 12]', ' ["B01", "12"] ', "B01 12", "B01,12",
        "B01, 12", "B01|12", "B01 | 12", "B01;12", "B01\t12", ["B01", 12.0], ["B01", None, "12"],
    ],
)  # fmt: skip
def test_ids_in_every_form(value):
    assert product_ids(value) == ["B01", "12"]


def test_no_ids_and_one_id():
    assert product_ids("12") == ["12"], "not the characters"
    assert product_ids("a 1|b 2,3") == ["a 1", "b 2,3"], "pipes first, so that ids may hold spaces and commas"
    assert [product_ids(value) for value in ("", [], "[]", None, float("nan"), pd.NA)] == [[]] * 6


@pytest.mark.parametrize("value", [3, True, {"a": 1}, '{"a": 1}', "['a', 'b']", '["a"', [["a"]], [True], "[1, {}]"])
def test_what_is_no_list_of_ids(value):
    with pytest.raises(ValueError, match="a list of product ids is a JSON list, or ids with spaces, commas"):
        product_ids(value)


@pytest.mark.parametrize(
    "value",
    [
        ["Home", "Lamps"], ("Home", "Lamps"), np.array(["Home", "Lamps"]), '["Home", "Lamps"]', "Home > Lamps",
        "Home>Lamps", ["Home", None, " Lamps "], ["Home", float("nan"), "Lamps"],
    ],
)  # fmt: skip
def test_levels_in_every_form(value):
    assert path_levels(value) == ["Home", "Lamps"]
    assert product_text({"category_path": value}) == "Home > Lamps"


@pytest.mark.parametrize(
    "value",
    [
        [{"name": "colour", "value": "red"}, {"name": "size", "value": "4"}],
        np.array([{"name": "colour", "value": "red"}, {"name": "size", "value": "4"}], dtype=object),
        [{"name": "colour", "value": "red"}, None, {"name": "size", "value": "4"}, {"name": "age", "value": None}],
        {"colour": "red", "size": "4", "age": float("nan"), "use": ""},
        [{"colour": "red"}, {"size": "4"}],
        [("colour", "red"), ("size", "4")],
        '{"colour": "red", "size": "4"}',
        '[{"name": "colour", "value": "red"}, {"name": "size", "value": "4"}]',
    ],
)
def test_attributes_in_every_form(value):
    assert attribute_pairs(value) == PAIRS
    product = {"attributes": value}
    assert product_text(product) == "colour red, size 4"
    assert product_text(product, ["size", "colour"]) == "4 . red"


def test_attributes_that_have_no_names():
    for value in ("red, blue", ["red, blue"], " red, blue ", [{"name": None, "value": "red, blue"}]):
        assert attribute_pairs(value) == [(None, "red, blue")]
    assert attribute_pairs("[red]") == [(None, "[red]")], "not JSON"
    assert [attribute_pairs(value) for value in (None, "", [], {}, float("nan"), pd.NA)] == [[]] * 6
    assert attribute_pairs({"watts": 40, "new": True}) == [("watts", 40), ("new", True)], "numbers are kept"
    assert attribute_pairs({"name": "colour", "value": "red"}) == [("colour", "red")]


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT")])
def test_what_is_missing_leaves_no_word(value):
    assert is_missing(value)
    assert as_text(value) == ""
    assert product_text({"title": value, "brand": "Acme", "category_path": value, "attributes": value}) == "Acme"


CATALOGUE = {
    "product_id": ["1", "2"],
    "title": ["Mug", "Plate"],
    "category_path": [["Home", "Mugs"], None],
    "attributes": [[{"name": "colour", "value": "red"}], None],
    "price": [3.5, None],
}


def test_types_change_only_the_columns_that_they_name(tmp_path):
    rows = [dict(zip(CATALOGUE, values, strict=True)) for values in zip(*CATALOGUE.values(), strict=True)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(
        pa.Table.from_pylist([{**row, "product_id": int(row["product_id"])} for row in rows]), tmp_path / "c.parquet"
    )
    (tmp_path / "c.csv").write_text(
        'product_id,title,category_path,attributes,price\n1,Mug,Home > Mugs,"{""colour"": ""red""}",3.5\n2,Plate,,,\n'
    )
    for name in ("c.jsonl", "c.parquet", "c.csv"):
        found = read_records(tmp_path / name, types=record_types("products"))
        assert found.column_names == list(CATALOGUE)
        assert {column: found.features[column] for column in list(CATALOGUE)[:4]} == {
            column: PRODUCT[column] for column in list(CATALOGUE)[:4]
        }
        for column in list(CATALOGUE)[:4]:
            assert [value or None for value in found[column]] == CATALOGUE[column], name
        assert found["price"][:] == (CATALOGUE["price"] if name == "c.parquet" else ["3.5", ""]), "as it was"


def test_only_required_columns_must_be_there(tmp_path):
    (tmp_path / "c.csv").write_text("product_id,title\n1,Mug\n")
    (tmp_path / "c.jsonl").write_text('{"product_id": "1", "title": "Mug"}\n{"product_id": "2", "brand": "Acme"}\n')
    pq.write_table(pa.table({"product_id": ["1"], "title": ["Mug"]}), tmp_path / "c.parquet")
    for name in ("c.csv", "c.jsonl", "c.parquet"):
        found = read_records(tmp_path / name, features=PRODUCT, required=["product_id"])
        assert found.features == PRODUCT
        assert found[0] == {**dict.fromkeys(PRODUCT), "product_id": "1", "title": "Mug"}
        with pytest.raises(ValueError, match=f"{name}: no column '(description|attributes)'"):
            read_records(tmp_path / name, features=PRODUCT)
        with pytest.raises(ValueError, match=f"{name}: no column 'language'"):
            read_records(tmp_path / name, features=PRODUCT, required=["product_id", "language"])
