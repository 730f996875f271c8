"""Questions and files that no index expects: every kind and every mode answers sensibly, or in one line that helps."""

from __future__ import annotations

import json
import socket
from datetime import date
from decimal import Decimal
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from index_cases import DIM, HashModel, clustered, make_products, rewrite_facts

from rexbert_hf.catalog import read_records
from rexbert_hf.retrieval.serving.hashing_encoder import HashingEncoder
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.index_options import KINDS, MODES

NO_QDRANT = pytest.mark.skipif(find_spec("qdrant_client") is None, reason="qdrant-client is not installed")
BACKENDS = ["faiss", pytest.param("qdrant", marks=NO_QDRANT)]

HEBREW = "\u05de\u05e0\u05d5\u05e8\u05d4 \u05d0\u05d3\u05d5\u05de\u05d4"
WOMAN_FARMER = "\U0001f469\u200d\U0001f33e"
ODD_TITLES = {"hebrew": HEBREW, "emoji": f"{WOMAN_FARMER} lamp", "half": "lamp \ud83d", "nul": "red\x00lamp"}
PRODUCTS = [*make_products(60), *({"product_id": name, "title": title} for name, title in ODD_TITLES.items())]


@pytest.fixture(scope="module", params=[*KINDS, "qdrant"])
def index(request):
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client")
        return ProductIndex.build(PRODUCTS, HashingEncoder(), "flat", backend="qdrant")
    return ProductIndex.build(PRODUCTS, HashingEncoder(), request.param, lexical=True)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", MODES)
def test_odd_queries_have_answers_in_every_mode(index, mode):
    queries = ["", " \t\n", "thing " * 10_000, "x" * 50_000, HEBREW, f"{WOMAN_FARMER} lamp", "lamp \ud83d", "!?"]
    found = index.search(queries, 5, mode=mode)
    assert [bool(hits) for hits in found[:3]] == [False, False, True]
    assert found[7] == []  # it holds no word
    assert found[4][0][0] == "hebrew"
    assert all(np.isfinite(score) for hits in found for _, score in hits)
    lamps = {name for name, _ in found[6][:3]}
    assert "half" in lamps  # halves of surrogate pairs are question marks on both sides


@pytest.mark.parametrize("mode", MODES)
def test_queries_that_the_model_knows_nothing_of_have_no_hits(index, mode):
    """Their vector is zero: any product would be as near, and fused its place among the rows would rank it."""
    nothing = ["!?", WOMAN_FARMER, "\u200b", "..."]
    assert not HashingEncoder().encode(nothing).any()
    assert index.search([*nothing, "thing", *nothing], 5, mode=mode) == [
        *[[]] * 4,
        *index.search("thing", 5, mode=mode),
        *[[]] * 4,
    ]
    assert index.search(nothing, 5, {"brand": "Acme"}, mode) == [[]] * 4


def test_a_zero_vector_has_no_hits(index):
    queries = np.zeros((3, index.dim), np.float32)
    queries[1, 0] = 1
    first, second, third = index.search(queries, 5)
    assert (first, len(second), third) == ([], 5, [])
    assert index.search(queries[0], 5) == [[]]


def test_a_hybrid_search_by_a_zero_vector_is_lexical():
    """A model may know less than the words of the catalogue."""

    class Blank(HashModel):
        def encode(self, texts):
            return super().encode(texts) * np.array([[text != "number 7"] for text in texts], np.float32)

    pytest.importorskip("qdrant_client")
    for backend in ("faiss", "qdrant"):
        index = ProductIndex.build(PRODUCTS[:20], Blank(), "flat", backend=backend)
        assert index.search("number 7", 5) == [[]]
        hybrid, lexical = (index.search("number 7", 5, mode=mode)[0] for mode in ("hybrid", "lexical"))
        assert [name for name, _ in hybrid] == [name for name, _ in lexical]
        assert hybrid[0][0] == "p7"


@pytest.mark.parametrize("mode", MODES)
def test_k_beyond_the_catalogue(index, mode):
    (hits,) = index.search("thing number", 10_000, mode=mode)
    names = [name for name, _ in hits]
    assert len(names) == len(set(names))
    assert len(names) == (60 if mode == "lexical" else len(PRODUCTS))


@pytest.mark.parametrize("k", [0, -3, 2.5, "3", True, None])
def test_k_that_is_no_number_of_hits(index, k):
    with pytest.raises(ValueError, match="ask for at least one hit, in a whole number") as error:
        index.search("thing", k)
    one_line(error)


def test_what_is_no_text_among_texts(index):
    with pytest.raises(TypeError, match="not 'None' among texts") as error:
        index.search(["thing", None], 3)
    one_line(error)


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_queries_of_pandas_and_numpy_are_texts(index, mode):
    texts = ["thing number 3", "red lamp"]
    wanted = index.search(texts, 3, mode=mode)
    for queries in (pd.Series(texts, index=[5, 6]), np.array(texts), np.array(texts, dtype=object), iter(texts)):
        assert index.search(queries, 3, mode=mode) == wanted
    assert index.search(pd.Series([], dtype=object), 3, mode=mode) == []


def test_vectors_may_be_lists_or_tensors(index):
    vectors = index.model.encode(["thing number 3", "red lamp"])
    wanted = index.search(vectors, 3)
    for queries in (vectors.tolist(), list(vectors), torch.from_numpy(vectors)):
        assert index.search(queries, 3) == wanted
    assert index.search(vectors[0].tolist(), 3) == index.search(vectors[:1], 3)


@pytest.mark.parametrize("queries", [pd.DataFrame({"query": ["lamp"]}), {"query": ["lamp"]}])
def test_a_table_is_no_list_of_queries(index, queries):
    with pytest.raises(TypeError, match="give one column") as error:
        index.search(queries, 3)
    one_line(error)


def test_titles_come_back_as_they_can_be_written(index):
    found = index.texts([*ODD_TITLES, "unknown"])
    assert found == [HEBREW, f"{WOMAN_FARMER} lamp", "lamp ?", "red\x00lamp", None]
    assert index.texts([]) == []


def test_facts_and_choices(index):
    assert index.facts(["p10", "p9", "unknown", "hebrew"]) == [
        {"category_path": "Home > Lamps", "brand": "Bolt", "price": 5.0, "in_stock": True, "locale": "en"},
        {"category_path": "Sport > Shoes > Running", "brand": "Acme", "price": 4.5, "in_stock": False, "locale": "en"},
        {},
        {},
    ]
    assert index.facts([]) == []
    assert index.choices("brand") == ["Acme", "Bolt", "Cord"]
    assert {"Home > Lamps", "Sport > Shoes > Running"} <= set(index.choices("category_path"))
    assert index.choices("price") == index.choices("colour") == []
    assert set(index.filter_columns) == {"category_path", "brand", "price", "in_stock", "locale"}


def test_an_odd_index_is_saved_and_opened(tmp_path):
    index = ProductIndex.build(PRODUCTS, HashingEncoder(), "int8", lexical=True)
    index.save(tmp_path)
    again = ProductIndex.load(tmp_path)
    for mode in MODES:
        assert again.search([HEBREW, "lamp \ud83d"], 5, mode=mode) == index.search(
            [HEBREW, "lamp \ud83d"], 5, mode=mode
        )


def test_a_brand_that_cannot_be_written_is_kept_as_it_can(tmp_path):
    index = ProductIndex.build([{"product_id": "a", "title": "x", "brand": "B\ud83d"}], HashingEncoder(), "flat")
    index.save(tmp_path)
    assert ProductIndex.load(tmp_path).search("x", 3, filter={"brand": "B?"})[0][0][0] == "a"


def test_an_id_that_cannot_be_written_names_its_product():
    with pytest.raises(ValueError, match=r"product 1: its product_id .* is not valid text") as error:
        ProductIndex.build([PRODUCTS[0], {"product_id": "\ud83d", "title": "x"}], HashingEncoder(), "flat")
    one_line(error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_category_is_asked_for_as_it_is_written_in_the_catalogue(backend):
    """Paths come with or without spaces, and as JSON; a level of a list may hold the mark itself."""
    paths = {
        "a": "Home>Lamps",
        "b": "Home > Lamps > Desk",
        "c": '["Home", "Lamps"]',
        "d": ["R>S", "T"],
        "e": "Home>Rugs",
    }
    products = [{"product_id": name, "title": "x", "category_path": path} for name, path in paths.items()]
    index = ProductIndex.build(products, HashModel(), "flat", backend=backend)
    for wanted, names in (
        ("Home>Lamps", "abc"),
        (" Home >Lamps ", "abc"),
        ("Home > Lamps", "abc"),
        ('["Home", "Lamps"]', "abc"),
        (["Home>Rugs", "Desk"], "be"),
        ("R>S", "d"),
        ("", ""),
        ("Home>Lam", ""),
    ):
        assert {name for name, _ in index.search("x", 9, filter={"category": wanted})[0]} == set(names), wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_decimal_prices_are_numbers(backend):
    """As databases give them."""
    products = [{"product_id": text, "title": "x", "price": Decimal(text)} for text in ("1.50", "20", "NaN")]
    index = ProductIndex.build(products, HashModel(), "flat", backend=backend)
    assert index.facts(["1.50", "20", "NaN"]) == [{"price": 1.5}, {"price": 20.0}, {}]
    assert [name for name, _ in index.search("x", 5, filter={"price": (Decimal("1.6"), None)})[0]] == ["20"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_object_as_price_or_stock_is_read_as_its_json(tmp_path, caplog, backend):
    """A column of structs in Parquet and objects from Python give the index that the same JSON lines give."""
    objects = [
        {"price": {"amount": 9.5, "unit": "EUR"}, "in_stock": {"quantity": 3}, "brand": {"name": "Acme"}},
        {"price": {"amount": None, "unit": "EUR"}, "in_stock": {"quantity": 0}, "brand": None},
    ]
    rows = [{"product_id": str(i), "title": "x", **row} for i, row in enumerate(objects)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    wanted = [{"price": 9.5, "in_stock": True, "brand": '{"name": "Acme"}'}, {"in_stock": False}]
    structs = Dataset.from_parquet(str(tmp_path / "p.parquet"), cache_dir=str(tmp_path / "cache"))
    for products in (rows, structs, *(read_records(str(tmp_path / name)) for name in ("p.parquet", "p.jsonl"))):
        caplog.clear()
        index = ProductIndex.build(products, HashModel(), "flat", backend=backend)
        assert index.facts(["0", "1"]) == wanted
        assert "1 products have a price that is no number" in caplog.text


def test_an_object_of_several_numbers_is_no_price(caplog):
    """The first one counted: a number of the price list, or the lower end of a range."""
    prices = [{"id": 7, "amount": 9.5}, '{"min": 5, "max": 9}', {"amount": "1 299,00", "unit": "EUR"}, '{"amount": 3}']
    products = [{"product_id": str(number), "title": "x", "price": price} for number, price in enumerate(prices)]
    index = ProductIndex.build(products, HashModel(), "flat")
    assert index.facts(["0", "1", "2", "3"]) == [{}, {}, {"price": 1299.0}, {"price": 3.0}]
    assert "2 products have a price that is no number" in caplog.text


def test_what_is_no_price_and_no_stock_is_counted(caplog):
    odd = [date(2026, 1, 2), {1, 2}, object()]
    products = [{"product_id": str(i), "title": "x", "price": one, "in_stock": one} for i, one in enumerate(odd)]
    index = ProductIndex.build([*products, dict(PRODUCTS[1])], HashModel(), "flat")
    assert index.facts(["0", "1", "2"]) == [{}, {}, {}]
    assert "3 products have a price that is no number" in caplog.text
    assert "3 products have a stock that says neither yes nor no" in caplog.text


@pytest.mark.parametrize("name", ["product_id", "text", "digest", "__alive", "__digest"])
def test_a_filter_column_with_a_name_of_the_index(name):
    """It took the place of what the index keeps under it."""
    with pytest.raises(ValueError, match=f"'{name}' is a name that the index itself uses: rename the column") as error:
        ProductIndex.build(PRODUCTS[:3], HashModel(), "flat", filters=["brand", name])
    one_line(error)


def test_given_vectors_that_are_not_finite_name_their_product():
    vectors = clustered(60)
    vectors[7, 3] = np.inf
    with pytest.raises(ValueError, match="the vector of product p7 is not finite") as error:
        ProductIndex.build(PRODUCTS[:60], None, "hnsw", vectors=vectors)
    one_line(error)


def test_an_upsert_with_vectors_that_are_not_finite_changes_nothing():
    model = HashModel()
    index = ProductIndex.build(PRODUCTS[:20], model, "hnsw")
    before = index.search(["thing number 3"], 30)
    model.encode = lambda texts: np.full((len(texts), DIM), np.nan, np.float32)
    with pytest.raises(ValueError, match="the vector of product p3 is not finite"):
        index.upsert([dict(PRODUCTS[3], title="changed")])
    del model.encode
    assert index.search(["thing number 3"], 30) == before
    assert index.texts(["p3"]) == ["thing number 3"]


def test_ids_that_come_twice_in_one_upsert():
    index = ProductIndex.build(PRODUCTS[:20], HashModel(), "hnsw")
    twice = [dict(PRODUCTS[3], title="first"), dict(PRODUCTS[3], title="second")]
    assert index.upsert(twice) == 1
    assert (len(index), index.texts(["p3"])) == (20, ["second"])
    assert index.search("second", 1)[0][0][0] == "p3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("model"), "it has no 'model'"),
        (lambda facts: facts.pop("options"), "it has no 'options'"),
        (lambda facts: facts.pop("dim"), "it has no 'dim'"),
        (lambda facts: facts.update(options={"kind": "ivf"}), "kind: expected one of flat, hnsw"),
        (lambda facts: facts.update(options={"color": 1}), "unknown key 'color'"),
        (lambda facts: facts.update(model={"name": "x"}), "revision is required"),
        (lambda facts: facts["model"].update(probes=[[1.0], [1.0, 2.0]]), "vectors of one width"),
        (lambda facts: facts["model"].update(probes=None), "model.*again|probes: expected"),
        (lambda facts: facts["model"].update(fingerprint=[]), "fingerprint: expected"),
        (lambda facts: facts.update(model=[]), r"index\.json"),
        (lambda facts: facts["options"].update(fields=-1), "fields: expected"),
        (lambda facts: facts["options"].update(kind=["flat"]), "kind: expected"),
        (lambda facts: facts["options"].update(links=1 << 31), "links must be at least 2 and below"),
        (lambda facts: facts["options"].update(oversample=float("nan")), "oversample"),
        (lambda facts: facts.update(format="two"), "written by a later"),
        (lambda facts: facts.update(backend="qdrant"), "it has no 'place'"),
        (lambda facts: facts.update(dim="wide"), "invalid literal"),
        (lambda facts: facts.update(files={}), "it names no file"),
        (lambda facts: facts.update(files={"vectors.safetensors": {}}), r"index\.json is damaged: build"),
        (lambda facts: facts.update(files=["vectors.safetensors"]), r"index\.json is damaged: build"),
        (lambda facts: facts["files"].update({"../CURRENT": {"bytes": 8, "sha256": ""}}), "which lies elsewhere"),
        (lambda facts: facts["files"].update({"/CURRENT": {"bytes": 8, "sha256": ""}}), "which lies elsewhere"),
        (lambda facts: facts.update(crc32=1), "its checksum differs"),
    ],
)
def test_a_description_that_does_not_fit_is_named(tmp_path, change, message):
    ProductIndex.build(PRODUCTS[:20], HashModel(), "flat").save(tmp_path)
    rewrite_facts(current_version(tmp_path) / "index.json", change)
    with pytest.raises(ValueError, match=message) as error:
        ProductIndex.load(tmp_path, HashModel())
    assert "again" in one_line(error) or "update it" in one_line(error)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 400])
def test_damaged_words_are_named_without_checksums_too(tmp_path, damage):
    ProductIndex.build(PRODUCTS[:20], HashModel(), "flat", lexical=True).save(tmp_path)
    version = current_version(tmp_path)
    for path in sorted((version / "bm25").iterdir()):
        if path.stat().st_size:
            whole = path.read_bytes()
            path.write_bytes(damage[: len(whole)].ljust(len(whole), b"\xff") if damage else b"\0" * len(whole))
            with pytest.raises(ValueError, match=r"bm25 holds no BM25 index .*build the index again") as error:
                ProductIndex.load(tmp_path, HashModel(), verify=False)
            one_line(error)
            path.write_bytes(whole)


def test_qdrant_that_goes_down_while_it_serves(monkeypatch):
    """Found down at a search, not at the build: the same one line."""
    pytest.importorskip("qdrant_client")
    from qdrant_client import QdrantClient

    index = ProductIndex.build(PRODUCTS[:5], HashingEncoder(), "flat", backend="qdrant")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    index.place = f"http://127.0.0.1:{port}"
    index.client = QdrantClient(url=index.place, timeout=2, check_compatibility=False)
    calls = [
        lambda: index.search("thing", 3),
        lambda: index.search("thing", 3, mode="lexical"),
        lambda: index.texts(["p1"]),
        lambda: index.facts(["p1"]),
        lambda: index.choices("brand"),
        lambda: index.upsert(PRODUCTS[:2]),
        lambda: index.delete(["p1"]),
        lambda: len(index),
    ]
    for call in calls:
        with pytest.raises(ConnectionError, match="is it running, and is the address right") as error:
            call()
        one_line(error)
