from __future__ import annotations

import json

import pytest
from pretraining_cases import TINY, settings

from rexbert_hf.pretraining import SourceSettings
from rexbert_hf.pretraining.product_settings import PairSettings, ProductTextSettings
from rexbert_hf.pretraining.product_sources import join_fields, relevance_of
from rexbert_hf.pretraining.sources import read_source, source_key

PRODUCT = {
    "title": "Steel Mug",
    "brand": "Ostwick",
    "category_path": ["Kitchen", "Mugs"],
    "attributes": [{"name": "colour", "value": "red"}],
    "description": "Keeps tea warm.",
}


def test_fields_with_their_names():
    assert join_fields(PRODUCT, ProductTextSettings()) == (
        "title: Steel Mug . brand: Ostwick . category_path: Kitchen > Mugs . attributes: colour red"
        " . description: Keeps tea warm."
    )
    assert join_fields(PRODUCT, ProductTextSettings(["colour", "title"], field_names=False)) == "red . Steel Mug"
    assert join_fields({"title": None, "description": "Just this."}, ProductTextSettings()) == "description: Just this."


def test_permuted_fields_hold_the_same_and_follow_from_the_seed():
    plain = join_fields(PRODUCT, ProductTextSettings()).split(" . ")
    orders = []
    for seed in range(30):
        text = join_fields(PRODUCT, ProductTextSettings(permute=True, seed=seed))
        assert text == join_fields(PRODUCT, ProductTextSettings(permute=True, seed=seed))
        assert sorted(text.split(" . ")) == sorted(plain)
        orders.append(text)
    assert len(set(orders)) > 20
    others = {
        join_fields({**PRODUCT, "brand": f"B{n}"}, ProductTextSettings(permute=True)).split(":")[0] for n in range(40)
    }
    assert others == {"title", "brand", "category_path", "attributes", "description"}, "each product has its own order"


def test_products_of_the_sample_shop_and_of_a_file(tmp_path):
    shop = read_source(SourceSettings(sample="products", sample_size=20, products=ProductTextSettings(["title"])))
    assert len(shop) == 20
    assert shop["text"][0].startswith("title: ")
    assert shop["product_id"][0]
    path = tmp_path / "shop.csv"
    path.write_text("name,maker\nMug,Acme\n,\nPlate,\n,Only Brand\n")
    source = SourceSettings(path=str(path), columns={"title": "name", "brand": "maker"}, products=ProductTextSettings())
    assert read_source(source, work_dir=tmp_path)["text"][:] == [
        "title: Mug . brand: Acme",
        "title: Plate",
        "brand: Only Brand",
    ]


def test_order_and_pairs_are_in_the_key_of_the_cache(tmp_path):
    products = tmp_path / "products.csv"
    products.write_text("product_id,title\na,Mug\n")
    base = {"sample": "products", "sample_size": 20}
    keys = {
        source_key(SourceSettings(**base, products=options), None)
        for options in (None, ProductTextSettings(), ProductTextSettings(permute=True), ProductTextSettings(seed=1))
    }
    assert len(keys) == 4
    pairs = SourceSettings(sample="query_products", sample_size=20, pairs=PairSettings(products=str(products)))
    before = source_key(pairs, None)
    products.write_text("product_id,title\na,Mug\nb,Plate\n")
    assert source_key(pairs, None) != before


def pair_source(tmp_path, rows, products=True, **options):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    if products:
        catalogue = tmp_path / "products.jsonl"
        rows = [
            {"product_id": "a", "title": "Mug"},
            {"product_id": "b", "title": "", "brand": "Acme"},
            {"product_id": "c"},
        ]
        catalogue.write_text("\n".join(json.dumps(row) for row in rows))
        options["products"] = str(catalogue)
        options["product_columns"] = {"product_id": "product_id", "title": "title", "brand": "brand"}
    return SourceSettings(path=str(path), pairs=PairSettings(**options))


PAIRS = [
    {"query": "red mug", "product_id": "a", "label": "E"},
    {"query": "red mug", "product_id": "b", "label": "I"},
    {"query": "", "product_id": "a", "label": "E"},
    {"query": "lamp", "product_id": "c", "label": "E"},
    {"query": "lamp", "product_id": "zz", "label": "E"},
]


def test_pairs_with_products_of_a_file(tmp_path, caplog):
    dataset = read_source(pair_source(tmp_path, PAIRS), work_dir=tmp_path)
    assert dataset["query"][:] == ["red mug", "red mug"]
    assert dataset["pair"][:] == [
        {"query": ["red mug"], "product": ["title: Mug"], "relevance": 1.0},
        {"query": ["red mug"], "product": ["brand: Acme"], "relevance": 0.0},
    ]
    for reason in ("1 with an empty query", "1 with an empty product", "1 with an unknown product"):
        assert reason in caplog.text


@pytest.mark.parametrize("least", [None, 0.5])
def test_pairs_that_are_neither_stay_out_without_a_word(tmp_path, caplog, least):
    rows = [{"query": "red mug", "product_id": "a", "label": "1"}, {"query": "mug", "product_id": "b", "label": "-2"}]
    assert read_source(pair_source(tmp_path, rows, min_relevance=least))["product_id"][:] == ["a"]
    assert "left out" not in caplog.text


def test_pairs_below_the_least_relevance_stay_out(tmp_path):
    dataset = read_source(pair_source(tmp_path, PAIRS, min_relevance=0.5))
    assert dataset["product_id"][:] == ["a"]


def test_pairs_that_bring_their_products_and_query_fields(tmp_path):
    rows = [
        {"query": "mug", "country": "IE", "title": "Big Mug", "relevance": 0.25},
        {"query": "lamp", "title": "Lamp"},
    ]
    source = pair_source(
        tmp_path, rows, products=False, query_fields=["query", "country"], product_fields=["title"], field_names=False
    )
    assert read_source(source)["pair"][:] == [
        {"query": ["query: mug", "country: IE"], "product": ["Big Mug"], "relevance": 0.25},
        {"query": ["query: lamp"], "product": ["Lamp"], "relevance": 1.0},
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"relevance": 2.33}, r"pair 0: relevance 2.33 is not in \[0, 1\]: recipes/build_pairs.py"),
        ({"label": "X"}, "pair 0: unknown label 'X'"),
    ],
)
def test_bad_relevance(row, problem):
    with pytest.raises(ValueError, match=problem):
        relevance_of(row)


def test_bad_sources(tmp_path):
    with pytest.raises(ValueError, match="no column 'query'"):
        read_source(pair_source(tmp_path, [{"search": "mug", "product_id": "a"}]))
    with pytest.raises(ValueError, match="no pair is left"):
        read_source(pair_source(tmp_path, PAIRS[2:]))
    with pytest.raises(ValueError, match="rows are products or pairs"):
        SourceSettings(sample="products", products=ProductTextSettings(), pairs=PairSettings())
    with pytest.raises(ValueError, match="join_words makes one document of several products"):
        SourceSettings(sample="products", products=ProductTextSettings(), join_words=100)
    with pytest.raises(ValueError, match="the first of query_fields is 'query'"):
        PairSettings(query_fields=["country"])


def test_settings_that_would_cut_pairs_or_have_none(tmp_path):
    masked = {"phases.anneal.masking.kind": "query_product", "phases.anneal.masking.options": "{}"}
    with pytest.raises(ValueError, match=r"phase 'anneal': masking.kind 'query_product' needs query-product pairs"):
        settings(tmp_path, base={**TINY, **masked})
    pairs = {"sources.shop.sample": "query_products", "sources.shop.pairs.max_tokens": "2000"}
    with pytest.raises(ValueError, match="seq_length=1024 would cut the pairs of 'shop'"):
        settings(tmp_path, base={**TINY, **masked, **pairs})
