"""One catalogue in CSV, JSON lines, Parquet and pandas: the same texts and the same facts to filter by."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from rexbert_hf.catalog import PRODUCT, product_text
from rexbert_hf.retrieval.pairs.run import read_products
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun, RecordSource
from rexbert_hf.retrieval.serving.filters import filter_values
from rexbert_hf.retrieval.serving.hashing_encoder import HashingEncoder
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, ProductSource, run_build_index

PRODUCTS = [
    {
        "product_id": "12",
        "title": "Red lamp",
        "brand": "Acme",
        "category_path": ["Home", "Lamps"],
        "attributes": [{"name": "colour", "value": "red"}, {"name": "watts", "value": "40"}],
        "price": 3.5,
        "in_stock": True,
        "stars": "4",
    },
    {
        "product_id": "3",
        "title": None,
        "brand": None,
        "category_path": ["Home", "Kettles"],
        "attributes": [{"name": "brand", "value": "Bolt"}],
        "price": None,
        "in_stock": False,
        "stars": None,
    },
    {
        "product_id": "4",
        "title": "Mug",
        "brand": "Cord",
        "category_path": None,
        "attributes": None,
        "price": 1299.0,
        "in_stock": None,
        "stars": None,
    },
]
FIELDS = ["title", "category_path", "attributes"]
FILTERS = ["category", "brand", "price", "in_stock", "stars", "colour"]
TEXTS = ["Red lamp . Home > Lamps . colour red, watts 40", "Home > Kettles . brand Bolt", "Mug"]
FACTS = [
    {"category_path": "Home > Lamps", "brand": "Acme", "price": 3.5, "in_stock": True, "stars": "4", "colour": "red"},
    {"category_path": "Home > Kettles", "brand": "Bolt", "in_stock": False},
    {"brand": "Cord", "price": 1299.0},
]


def listed(product, name, form):
    value = product[name]
    if value is None or form == "lists":
        return value
    if form == "json":
        return json.dumps(value)
    if name == "category_path":
        return " > ".join(value)
    pairs = {pair["name"]: pair["value"] for pair in value}
    return json.dumps(pairs) if form == "text" else pairs


def frame(form):
    rows = [{**row, **{name: listed(row, name, form) for name in ("category_path", "attributes")}} for row in PRODUCTS]
    return pd.DataFrame(rows)


def write(folder, name, form):
    path = folder / f"catalogue.{name}"
    table = frame(form)
    if name == "csv":
        table.to_csv(path, index=False)
    elif name == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    return str(path)


FORMS = [
    ("parquet", "lists"), ("parquet", "json"), ("jsonl", "lists"), ("jsonl", "json"), ("jsonl", "mapping"),
    ("csv", "json"), ("csv", "text"),
]  # fmt: skip


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_format_gives_the_same_index(tmp_path, name, form, mapped):
    columns = {column: column for column in PRODUCTS[0]} if mapped else None
    run = BuildIndexRun(
        products=ProductSource(path=write(tmp_path, name, form), columns=columns),
        output_dir=tmp_path / "index",
        index=IndexOptions(kind="flat", fields=FIELDS, filters=FILTERS),
        queries=["lamp"],
        filter={"category": "Lamps"},
        modes=["dense"],
    )
    results = run_build_index(run)
    assert [hit["id"] for hit in results["searches"][0]["hits"]] == ["12"]
    index = ProductIndex.load(tmp_path / "index")
    assert (index.texts(["12", "3", "4"]), index.facts(["12", "3", "4"])) == (TEXTS, FACTS)
    again = run_build_index(run)
    assert (again["updated"], again["encoded"], again["deleted"]) == (True, 0, 0)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_format_gives_the_same_products_beside_the_pairs(tmp_path, name, form):
    source = RecordSource(path=write(tmp_path, name, form))
    run = BuildPairsRun(source, RecordSource(sample="events"), output_dir=tmp_path)
    products, _ = read_products(run, tmp_path / "rows")
    assert [product_text(row, FIELDS) for row in products] == TEXTS
    assert products.column_names == list(PRODUCTS[0])
    for column in ("category_path", "attributes"):
        assert products.features[column] == PRODUCT[column]
        assert products[column][:] == [row[column] for row in PRODUCTS]


@pytest.mark.parametrize("form", ["lists", "json", "mapping", "text"])
@pytest.mark.parametrize("kind", ["pandas", "pandas types", "arrays"])
def test_products_from_pandas_are_those_of_files(form, kind):
    table = frame(form).convert_dtypes() if kind == "pandas types" else frame(form)
    rows = table.to_dict("records")
    if kind == "arrays":  # as pandas reads the lists of Parquet
        rows = [
            {key: np.array(v, dtype=object) if isinstance(v, list) else v for key, v in row.items()} for row in rows
        ]
    index = ProductIndex.build(rows, HashingEncoder(), "flat", fields=FIELDS, filters=FILTERS)
    assert (index.texts(["12", "3", "4"]), index.facts(["12", "3", "4"])) == (TEXTS, FACTS)


MISSING = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, ""]


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_no_text_and_no_fact(missing):
    products = [
        {"product_id": 1, "title": missing, "brand": "Acme"},
        {"product_id": 2.0, "title": "x", "in_stock": missing, "price": missing, "category_path": missing},
        {"product_id": "3", "title": missing, "description": missing},
    ]
    index = ProductIndex.build(products, HashingEncoder(), "flat")
    assert (index.ids(), index.texts(["1", "2"])) == (["1", "2"], ["Acme", "x"])
    assert index.facts(["2"]) == [{}]
    assert filter_values({"language": "en", "locale": missing}, ["locale"]) == {"locale": "en"}


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_a_data_frame_is_its_records(backend, monkeypatch):
    if backend == "qdrant":
        pytest.importorskip("qdrant_client")
    monkeypatch.setattr("rexbert_hf.retrieval.serving.product_rows.BATCH_PRODUCTS", 2)
    table = pd.DataFrame(PRODUCTS, index=[7, 8, 9])
    options = {"backend": backend, "fields": FIELDS, "filters": FILTERS}
    index = ProductIndex.build(table, HashingEncoder(), "flat", **options)
    assert (index.texts(["12", "3", "4"]), index.facts(["12", "3", "4"])) == (TEXTS, FACTS)
    assert index.upsert(table.iloc[1:].assign(title="Blue kettle")) == 2
    assert len(index) == 3


@pytest.mark.parametrize(
    ("products", "message"),
    [
        ("shop.csv", r"not the path 'shop\.csv': read it first, catalog\.read_records\('shop\.csv'\)$"),
        (PRODUCTS[0], "products are several records, not one dict: give a list"),
        ([PRODUCTS[0], "shop.csv"], "product 1 is str: a mapping with product_id and title is due"),
    ],
)
def test_what_is_no_list_of_products_names_the_way_out(products, message):
    with pytest.raises(TypeError, match=message):
        ProductIndex.build(products, HashingEncoder(), "flat")


@pytest.mark.parametrize("missing", [*MISSING, "  "])
def test_a_product_without_id_names_its_row(missing):
    products = [{"product_id": "1", "title": "x"}, {"product_id": missing, "title": "y"}]
    with pytest.raises(ValueError, match=r"^product 1 has no product_id .*: give each product one$"):
        ProductIndex.build(products, HashingEncoder(), "flat")


IN_STOCK = [5, "5", "5.0", "1,000", "1 000", "5 left", "Only 3 left!", "10+", "schema:InStoreOnly", "yes", "True"]
IN_STOCK += ["available", "In Stock", "in-stock", "in_stock", "InStock", "https://schema.org/InStock"]
OUT_OF_STOCK = [0, "0", "0.0", "-2", "0 left", "in stock: 0", "no", "FALSE", "Out of stock", "Sold out."]
OUT_OF_STOCK += ["out_of_stock", "https://schema.org/OutOfStock", "schema.org/SoldOut", "preorder", "unavailable"]
NEITHER = ["ask us", "auf Lager", "available in 3 weeks", "ships in 2 days", "?", "from 2026-05-01"]
STOCKS = {True: IN_STOCK, False: OUT_OF_STOCK, None: NEITHER}


@pytest.mark.parametrize(("value", "expected"), [(text, said) for said, texts in STOCKS.items() for text in texts])
def test_a_stock_in_text_is_that_of_a_number(value, expected):
    for product in ({"in_stock": value}, {"attributes": {"stock": value}}):
        found = filter_values(product, ["in_stock"])["in_stock"]
        assert math.isnan(found) if expected is None else found is expected


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_a_stock_that_nobody_can_read_is_none_and_counted(backend, caplog):
    if backend == "qdrant":
        pytest.importorskip("qdrant_client")
    stocks = {"a": "5 left", "b": "ask us", "c": "Sold out", "d": None}
    products = [{"product_id": name, "title": "x", "in_stock": stock} for name, stock in stocks.items()]
    index = ProductIndex.build(products, HashingEncoder(), "flat", backend=backend)
    assert index.facts(list(stocks)) == [{"in_stock": True}, {}, {"in_stock": False}, {}]
    for wanted, names in ((True, ["a"]), (False, ["c"])):
        assert [name for name, _ in index.search("x", 9, filter={"in_stock": wanted})[0]] == names
    assert "1 products have a stock that says neither yes nor no: they are kept without one" in caplog.text
