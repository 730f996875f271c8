from __future__ import annotations

import pytest
from datasets import Dataset

from rexbert_hf.catalog import PRODUCT, RECORDS, load_sample, product_text

PRODUCT_ROW = {
    "product_id": "P1",
    "title": "Ostwick kettle",
    "description": "Boils water.",
    "brand": "Ostwick",
    "category_path": ["Kitchen", "Kettles"],
    "attributes": [{"name": "colour", "value": "red"}, {"name": "capacity", "value": "1.7 L"}],
    "language": "en",
}


@pytest.mark.parametrize("kind", RECORDS)
def test_each_record_survives_parquet(kind, tmp_path):
    rows = load_sample(kind, size=8)
    assert rows.features == RECORDS[kind]
    path = tmp_path / "rows.parquet"
    rows.to_parquet(path)
    back = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert back.features == RECORDS[kind]
    assert back.to_list() == rows.to_list()


def test_product_text_joins_all_fields_in_the_documented_order():
    assert product_text(PRODUCT_ROW) == (
        "Ostwick kettle . Ostwick . Kitchen > Kettles . colour red, capacity 1.7 L . Boils water."
    )


def test_product_text_takes_fields_attributes_and_separator_as_told():
    text = product_text(PRODUCT_ROW, fields=("capacity", "title", "absent"), field_names=True, separator=" | ")
    assert text == "capacity: 1.7 L | title: Ostwick kettle"


def test_attributes_that_are_text_stay_text():
    """A text format, of which nobody has said the types, has text in all columns."""
    product = {"title": "Mug", "attributes": " colour: red; 0.3 l "}
    assert product_text(product) == "Mug . colour: red; 0.3 l"
    assert product_text(product, fields=("title", "colour")) == "Mug"


def test_product_text_leaves_nothing_behind_for_missing_fields():
    row = dict.fromkeys(PRODUCT, None) | {"title": " Mug ", "category_path": [], "attributes": []}
    assert product_text(row, field_names=True) == "title: Mug"
    assert product_text({}) == ""
    attributes = [
        {"name": "colour", "value": None},
        {"name": None, "value": "red"},
        None,
        {"name": "size", "value": "S"},
    ]
    row = {"title": None, "category_path": ["Home", None, "Mugs"], "attributes": attributes}
    assert product_text(row) == "Home > Mugs . red, size S"
    assert product_text(row, fields=("colour", "size")) == "S"
