"""Every kind of index against exact search: unfiltered, filtered, after changes, on odd input."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from index_cases import DIM, HashModel, clustered, exact, make_products, recall

from rexbert_hf.retrieval.serving.dense import walk_pays
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_options import KINDS

COUNT = 6_000
VECTORS = clustered(COUNT)
QUERIES = clustered(40, seed=1)
PRODUCTS = make_products(COUNT)
LEAST_RECALL = {"flat": 1.0, "hnsw": 0.98, "int8": 0.98, "int4": 0.95, "binary": 0.6}
"""At 20 hits; binary codes of 32 dimensions are coarse, the others are what the graph is asked for."""


@pytest.fixture(scope="module", params=KINDS)
def index(request):
    return ProductIndex.build(PRODUCTS, None, request.param, vectors=VECTORS)


@pytest.fixture(scope="module")
def graph():
    return ProductIndex.build(PRODUCTS, None, "hnsw", vectors=VECTORS)


def rows_that(passes) -> np.ndarray:
    return np.array([bool(passes(product)) for product in PRODUCTS])


def test_recall_and_scores(index):
    found = index.search(QUERIES, 20)
    assert recall(found, exact(VECTORS, QUERIES, 20)) >= LEAST_RECALL[index.options.kind]
    for query, hits in zip(QUERIES, found, strict=True):
        scores = [score for _, score in hits]
        assert scores == sorted(scores, reverse=True)
        # Whatever the codes, a score is that of the stored vectors.
        true = [float(VECTORS[int(name[1:])] @ query) for name, _ in hits]
        np.testing.assert_allclose(scores, true, atol=1e-5)


FILTERS = {
    "one per cent": ({"locale": "de"}, lambda p: p["locale"] == "de"),
    "ten per cent": ({"category": "Lamps"}, lambda p: p["category_path"][-1] == "Lamps"),
    "half": ({"in_stock": True}, lambda p: p["in_stock"]),
    "a path's beginning": ({"category": "Sport > Shoes"}, lambda p: p["category_path"][0] == "Sport"),
    "any of": ({"brand": ["Acme", "Cord"]}, lambda p: p["brand"] in ("Acme", "Cord")),
    "a range": ({"price": (100, 1000)}, lambda p: 100 <= p.get("price", -1) <= 1000),
    "an open range": ({"price": {"max": 50}}, lambda p: p.get("price", 1e9) <= 50),
    "two": ({"brand": "Bolt", "in_stock": False}, lambda p: p["brand"] == "Bolt" and not p["in_stock"]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(index, name):
    wanted, passes = FILTERS[name]
    mask = rows_that(passes)
    assert 10 < mask.sum() < COUNT
    found = index.search(QUERIES, 20, filter=wanted)
    assert all(mask[int(product[1:])] for hits in found for product, _ in hits)
    assert all(len(hits) == min(20, mask.sum()) for hits in found)
    assert recall(found, exact(VECTORS, QUERIES, 20, mask)) >= LEAST_RECALL[index.options.kind]


def test_a_graph_walks_with_a_selector_where_many_pass(graph, monkeypatch):
    """Else the filters above would all be answered exactly."""
    asked = []
    walk = type(graph.state.codes).search
    monkeypatch.setattr(type(graph.state.codes), "search", lambda *args: asked.append(args) or walk(*args))
    graph.search(QUERIES[:1], 5, filter={"category": "Lamps"})
    assert not asked  # 600 of 6,000 are cheaper to compare
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense._WALK_COST", 0.0)
    mask = rows_that(lambda p: p["in_stock"])
    assert recall(graph.search(QUERIES, 20, filter={"in_stock": True}), exact(VECTORS, QUERIES, 20, mask)) >= 0.98
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense.EXACT_ROWS", 0)
    mask = rows_that(lambda p: p["category_path"][-1] == "Lamps")
    assert recall(graph.search(QUERIES, 20, filter={"category": "Lamps"}), exact(VECTORS, QUERIES, 20, mask)) >= 0.98
    assert len(asked) == 2


def test_a_number_of_numpy_is_one_of_hits(index, monkeypatch):
    """Where graph and lists are walked too: FAISS takes its own whole numbers only."""
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense.EXACT_ROWS", 0)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense._WALK_COST", 0.0)
    for wanted in (None, {"brand": ["Acme", "Cord"]}):
        assert index.search(QUERIES[:2], np.int64(5), wanted) == index.search(QUERIES[:2], 5, wanted)


def test_walking_pays_for_many_rows_only():
    assert not walk_pays(1_000, 1_000, 64)
    assert walk_pays(1_000_000, 1_000_000, 300)
    assert not walk_pays(10_000, 1_000_000, 300)  # 1 %
    assert walk_pays(100_000, 1_000_000, 300)  # 10 %


def test_a_walk_that_does_not_reach_enough_rows_is_made_up_for(graph, monkeypatch):
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense.EXACT_ROWS", 0)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense._WALK_COST", 0.0)
    walk = type(graph.state.codes).search

    def lame(self, queries, n, ef, mask=None):
        scores, rows = walk(self, queries, n, ef, mask)
        rows[0, 3:] = -1
        return scores, rows

    monkeypatch.setattr(type(graph.state.codes), "search", lame)
    assert recall(graph.search(QUERIES[:2], 20), exact(VECTORS, QUERIES[:2], 20)) >= 0.98


def test_upsert_and_delete(index):
    """On a copy of 500: replaced products are found by their new text, deleted ones never."""
    model = HashModel()
    kind = index.options.kind
    small = ProductIndex.build(PRODUCTS[:500], model, kind)
    model.seen.clear()
    changed = [dict(PRODUCTS[i], title=f"changed {i}") for i in range(0, 50, 10)]
    cheaper = [dict(PRODUCTS[i], price=0.01) for i in range(1, 50, 10)]
    new = make_products(3, first=9_000)
    assert small.upsert([*changed, *cheaper, *new]) == 8
    assert sorted(model.seen) == sorted(product["title"] for product in [*changed, *new])
    assert len(small) == 503
    for product in [*changed, *new]:
        (best, score), *_ = small.search(product["title"], 3)[0]
        assert best == product["product_id"]
        assert score == pytest.approx(1.0, abs=1e-5)
    names = [name for name, _ in small.search("thing number 10", 600)[0]]
    assert len(names) == len(set(names)) == 503
    assert {name for name, _ in small.search("x", 50, filter={"price": (0, 0.01)})[0]} == {
        p["product_id"] for p in cheaper
    }
    assert small.delete(["p10", "p11", "unknown", "p11"]) == 2
    names = [name for name, _ in small.search("changed 10", 600)[0]]
    assert "p10" not in names
    assert "p11" not in names
    assert len(names) == len(small) == 501
    assert small.upsert([PRODUCTS[11]]) == 1  # comes back
    assert small.search(PRODUCTS[11]["title"], 1)[0][0][0] == "p11"
    before = small.search(QUERIES[:3], 10)
    small.compact()
    assert len(small.state.rows) == len(small) == 502
    assert small.dead_share == 0
    if kind != "binary":  # its mean has moved
        assert [[name for name, _ in hits] for hits in small.search(QUERIES[:3], 10)] == [
            [name for name, _ in hits] for hits in before
        ]


@pytest.mark.parametrize("kind", ["hnsw", "int8", "int4"])
def test_a_graph_that_has_changed_is_walked(kind, monkeypatch):
    """New rows are reached, dead ones are passed through and never returned."""
    index = ProductIndex.build(PRODUCTS[:4_000], None, kind, vectors=VECTORS[:4_000])
    model = HashModel()
    model.encode = lambda texts: VECTORS[[int(text.split()[-1]) for text in texts]]
    index._model = model
    index.upsert(PRODUCTS[4_000:])
    index.upsert([dict(PRODUCTS[i], title=f"again {i}") for i in range(0, 400)])
    index.delete([f"p{i}" for i in range(1_000, 2_000)])
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense.EXACT_ROWS", 0)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense._WALK_COST", 0.0)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense.exact_search", lambda *_: pytest.fail("not walked"))
    mask = np.ones(COUNT, dtype=bool)
    mask[1_000:2_000] = False
    assert recall(index.search(QUERIES, 20), exact(VECTORS, QUERIES, 20, mask)) >= LEAST_RECALL[kind]


def test_upserts_in_any_order_give_the_same_index_as_one_build():
    model = HashModel()
    index = ProductIndex.build(PRODUCTS[:100], model, "flat")
    rng = np.random.default_rng(0)
    current = {product["product_id"]: product for product in PRODUCTS[:100]}
    for _ in range(20):
        if rng.random() < 0.3:
            gone = rng.choice(sorted(current), 3, replace=False).tolist()
            assert index.delete(gone) == 3
            for name in gone:
                del current[name]
        else:
            part = [dict(PRODUCTS[i], title=f"thing {i} {rng.integers(3)}") for i in rng.integers(0, 200, 8)]
            index.upsert(part)
            current |= {product["product_id"]: product for product in part}
    fresh = ProductIndex.build(list(current.values()), model, "flat")
    for wanted in (None, {"brand": "Bolt"}, {"price": (None, 40)}):
        ours, theirs = index.search(QUERIES, 300, filter=wanted), fresh.search(QUERIES, 300, filter=wanted)
        for mine, other in zip(ours, theirs, strict=True):
            assert dict(mine) == pytest.approx(dict(other), abs=1e-6)


def test_int8_storage_keeps_scores():
    index = ProductIndex.build(PRODUCTS, None, "flat", vectors=VECTORS, storage="int8")
    found = index.search(QUERIES, 20)
    assert recall(found, exact(VECTORS, QUERIES, 20)) >= 0.95
    true = [
        float(VECTORS[int(name[1:])] @ query) for query, hits in zip(QUERIES, found, strict=True) for name, _ in hits
    ]
    np.testing.assert_allclose([score for hits in found for _, score in hits], true, atol=5e-3)


def test_inner_product_metric():
    vectors = VECTORS[:200] * np.linspace(0.5, 2, 200, dtype=np.float32)[:, None]
    index = ProductIndex.build(PRODUCTS[:200], None, "flat", vectors=vectors, metric="dot")
    found = index.search(3 * QUERIES, 5)
    expected = exact(vectors, QUERIES, 5)
    assert [[name for name, _ in hits] for hits in found] == [[f"p{i}" for i in rows] for rows in expected]
    assert found[0][0][1] == pytest.approx(3 * float(vectors[expected[0][0]] @ QUERIES[0]), rel=1e-5)


def test_odd_questions(index):
    (everything,) = index.search(QUERIES[:1], COUNT + 5)  # k larger than the catalogue
    assert {name for name, _ in everything} == {product["product_id"] for product in PRODUCTS}
    assert index.search(np.zeros((0, DIM), np.float32), 5) == []
    assert index.search([row.tolist() for row in QUERIES[:2]], 5) == index.search(QUERIES[:2], 5)
    assert index.search(QUERIES[:1], 5, filter={"brand": "none such"}) == [[]]
    assert index.search(QUERIES[:1], 5, filter={"brand": []}) == [[]]
    assert len(index.search(QUERIES[0], 5)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0: ask for at least one hit"),
        ({"mode": "vector"}, "search mode 'vector' is unknown"),
        ({"mode": "lexical"}, "needs the texts of queries"),
        (
            {"filter": {"colour": "red"}},
            "no column 'colour' in this index; it has: brand, category_path, in_stock, locale, price",
        ),
        ({"filter": {"price": "cheap"}}, "filter price: the column holds numbers"),
        ({"filter": {"brand": (1, 2)}}, "filter brand: the column holds texts"),
        ({"filter": {"price": (1, 2, 3)}}, r"filter price: the column takes \(low, high\)"),
        ({"filter": {"price": {"from": 1}}}, "filter price: unknown 'from'"),
        ({"filter": {"price": {"max": "60"}}}, "filter price: the column holds numbers, not '60'"),
        ({"filter": {"price": None}}, "filter price: the column holds numbers, not None"),
        ({"filter": {"category": "Lamps", "category_path": "Home"}}, "'category_path' and 'category_path' are one"),
        ({"filter": "price < 3"}, "a filter is a mapping"),
        ({"queries": np.ones((1, DIM + 1), np.float32)}, "queries have 33 dimensions, the index 32"),
        ({"queries": np.full((1, DIM), np.nan, np.float32)}, "the vector of query 0 is not finite"),
    ],
)
def test_wrong_questions_are_one_line(graph, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        graph.search(**{"queries": QUERIES[:1], "k": 5, **arguments})
    assert "\n" not in str(error.value)


def test_what_is_no_query(graph):
    for queries in ([None], [["a", "b"]], np.array([b"a"]), np.array([None])):
        with pytest.raises(TypeError, match="queries are texts or vectors of numbers"):
            graph.search(queries, 5)


def test_a_wrong_upsert_changes_nothing():
    index = ProductIndex.build(PRODUCTS[:50], HashModel(), "hnsw")
    before = index.search(QUERIES, 50)
    with pytest.raises(ValueError, match="product p3: brand is 5, but the column holds texts"):
        index.upsert(
            [{"product_id": "p2", "title": "new", "brand": "New"}, {"product_id": "p3", "title": "n", "brand": 5}]
        )
    assert index.search(QUERIES, 50) == before
    assert index.upsert([{"product_id": "p3", "title": "n", "brand": "New"}]) == 1
    assert [name for name, _ in index.search("n", 5, filter={"brand": "New"})[0]] == ["p3"]


def test_an_upsert_with_a_wrong_value_changes_no_product_of_its_batch():
    index = ProductIndex.build(PRODUCTS[:50], HashModel(), "hnsw", filters=["price", "brand", "colour"])
    with pytest.raises(ValueError, match="product p3: brand is 5, but the column holds texts"):
        index.upsert([dict(PRODUCTS[2], price=9_999, colour=7), dict(PRODUCTS[3], brand=5)])
    assert index.search("x", 5, filter={"price": (9_000, None)}) == [[]]
    assert index.filter_columns == ["price", "brand"]
    assert index.upsert([dict(PRODUCTS[2], colour="red")]) == 0  # the column is still free to hold texts
    assert index.choices("colour") == ["red"]


def test_a_product_without_text_any_more_is_removed(caplog):
    index = ProductIndex.build(PRODUCTS[:20], HashModel(), "flat")
    changed = [{"product_id": "p3", "price": 3}, dict(PRODUCTS[4], price=1.5), {"product_id": "new", "title": " "}]
    assert index.upsert(changed) == 0
    assert "1 products have no text any more and were removed from the index: an upsert takes whole" in caplog.text
    assert "1 products without any text left out" in caplog.text
    assert index.texts(["p3", "p4"]) == [None, "thing number 4"]
    assert len(index.search("thing number 3", 30)[0]) == len(index) == 19
    twice = [{"product_id": "p5", "title": "new"}, {"product_id": "p5"}, {"product_id": "p6"}, PRODUCTS[6]]
    index.upsert(twice)  # the last one counts
    assert index.texts(["p5", "p6"]) == [None, "thing number 6"]
    built = ProductIndex.build([*PRODUCTS[:3], {"product_id": "p1"}], HashModel(), "flat")
    assert built.ids() == ["p0", "p2"]


def test_prices_are_read_however_they_are_written(caplog):
    written = {
        "$1,050.50": 1050.5, "1.299,00": 1299, "1.250.000": 1_250_000, "Rp 1.250.000": 1_250_000, "19,99 EUR": 19.99,
        "1 299,00": 1299, "1\u202f299 \u20ac": 1299, "1'299.50": 1299.5, "12.5": 12.5, "7": 7, "0.125": 0.125,
        "19,99 100 g": 19.99, "1,00,000": 100_000, "12.3456": 12.3456, "10-20": 10,
        "$.99": 0.99, ".999 EUR": 0.999, "\u20ac,50": 0.5, "Rs.500": 500, "Rs .500": 0.5,
    }  # fmt: skip
    unread = ["on request", "1.2.3", "1e5"]
    titled = [{"product_id": text, "title": "x", "price": text} for text in [*written, *unread]]
    index = ProductIndex.build(titled, HashModel(), "flat")
    facts = index.facts([*written, *unread])
    assert [found.get("price") for found in facts] == [*written.values(), None, None, None]
    assert "3 products have a price that is no number" in caplog.text
    assert index.upsert([{"product_id": "7", "title": "x", "price": "?"}]) == 0
    assert index.facts(["7"]) == [{}]


def test_filters_see_what_has_changed(index):
    small = ProductIndex.build(PRODUCTS[:60], HashModel(), index.options.kind)
    wanted = {"brand": "Acme"}
    assert len(small.search("x", 60, filter=wanted)[0]) == 20
    small.upsert([dict(PRODUCTS[1], brand="Acme"), dict(PRODUCTS[900], brand="Acme")])
    assert len(small.search("x", 60, filter=wanted)[0]) == 22
    assert len(small.search("x", 60, filter={"price": (1, 20)})[0]) > 30
    assert len(small.search("x", 60, filter={"price": [1, 20]})[0]) == 2  # a list is no range
    many = np.array([f"brand {i}" for i in range(2_000)])
    assert small.search("x", 60, filter={"brand": many}) == [[]]
    many[1_000] = "Bolt"
    assert len(small.search("x", 60, filter={"brand": many})[0]) == 19
    small.delete(["p0", "p1"])
    assert len(small.search("x", 60, filter=wanted)[0]) == 20


def test_queries_without_text_have_no_hits():
    index = ProductIndex.build(PRODUCTS[:20], HashModel(), "flat", lexical=True)
    for mode in ("dense", "lexical", "hybrid"):
        found = index.search(["thing number 3", "", " \n "], 4, mode=mode)
        assert [len(hits) > 0 for hits in found] == [True, False, False]
        assert index.search([], 4, mode=mode) == []


def test_odd_products(caplog):
    products = [
        {"product_id": "a", "title": "old"},
        {"product_id": "b", "title": ""},
        {"product_id": "c", "title": None, "brand": "Acme", "attributes": [{"name": "price", "value": "$9.99"}]},
        {"product_id": 7, "title": "numbered", "language": "de"},
        {"product_id": "a", "title": "new \U0001f600 \u05e9\u05dc\u05d5\u05dd"},
    ]
    index = ProductIndex.build(products, HashModel(), "flat")
    assert len(index) == 3
    assert "1 products without any text left out" in caplog.text
    assert "1 products replaced by a later one of their id" in caplog.text
    assert index.texts(["a", "b", "c", "7"]) == [
        "new \U0001f600 \u05e9\u05dc\u05d5\u05dd",
        None,
        "Acme . price $9.99",
        "numbered",
    ]
    assert [name for name, _ in index.search("x", 5, filter={"price": (9, 10)})[0]] == ["c"]
    assert [name for name, _ in index.search("x", 5, filter={"locale": "de"})[0]] == ["7"]


@pytest.mark.parametrize(
    ("products", "message"),
    [
        ([], "no product to index"),
        ([{"product_id": "a", "title": " "}], "no product to index .1 had no text"),
        ([{"product_id": "a", "title": "x"}, {"title": "y"}], "product 1 has no product_id"),
        ([{"product_id": "a", "title": "x", "brand": 3}, {"product_id": "b", "title": "y", "brand": "B"}], "b: brand"),
    ],
)  # fmt: skip
def test_wrong_products_are_one_line(products, message):
    with pytest.raises(ValueError, match=message) as error:
        ProductIndex.build(products, HashModel(), "flat")
    assert "\n" not in str(error.value)


def test_vectors_that_are_not_finite_name_their_product():
    class Broken(HashModel):
        def encode(self, texts):
            vectors = super().encode(texts)
            vectors[[text == "thing number 3" for text in texts]] = np.nan
            return vectors

    with pytest.raises(ValueError, match="the vector of product p3 is not finite"):
        ProductIndex.build(PRODUCTS[:5], Broken(), "flat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": "title"}, r"index fields is a list of names: write fields=\['title'\], not fields='title'"),
        ({"filters": "price"}, r"index filters is a list of names: write filters=\['price'\]"),
        ({"dense_weight": "2"}, "index dense_weight is a number, not '2'"),
        ({"links": "32"}, "index links is a number, not '32'"),
    ],
)
def test_options_of_another_type_are_one_line(options, message):
    with pytest.raises(TypeError, match=message) as error:
        ProductIndex.build(PRODUCTS[:3], HashModel(), "flat", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["links", "ef_construction", "ef_search"])
def test_an_option_that_counts_is_whole(name):
    """FAISS would say so only when all products are encoded, or at the first search."""
    model = HashModel()
    with pytest.raises(ValueError, match=f"index {name} is a whole number, not 64.5") as error:
        ProductIndex.build(PRODUCTS[:3], model, **{name: 64.5})
    assert "\n" not in str(error.value)
    assert PRODUCTS[0]["title"] not in model.seen


def test_options_may_be_numbers_of_numpy_or_whole_floats(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense.EXACT_ROWS", 0)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.dense._WALK_COST", 0.0)
    plain = {"links": 16, "ef_construction": 64, "ef_search": 200, "oversample": 2.0, "dense_weight": 0.5}
    numpy = {"links": np.int64(16), "ef_construction": 64.0, "ef_search": np.int32(200)}
    numpy |= {"oversample": np.float32(2), "dense_weight": np.float32(0.5)}
    wanted = ProductIndex.build(PRODUCTS[:300], None, vectors=VECTORS[:300], **plain)
    index = ProductIndex.build(PRODUCTS[:300], None, vectors=VECTORS[:300], **numpy)
    assert index.search(QUERIES, 5) == wanted.search(QUERIES, 5)
    index.save(tmp_path)
    assert ProductIndex.load(tmp_path).options == wanted.options


def test_wrong_options_are_one_line():
    with pytest.raises(ValueError, match="index kind 'ivf' is unknown: choose one of flat, hnsw, int8, int4, binary"):
        ProductIndex.build(PRODUCTS[:5], HashModel(), "ivf")
    with pytest.raises(TypeError, match="unknown index option 'nlist'"):
        ProductIndex.build(PRODUCTS[:5], HashModel(), nlist=3)
    with pytest.raises(ValueError, match="backend 'milvus' is unknown"):
        ProductIndex.build(PRODUCTS[:5], HashModel(), backend="milvus")
    with pytest.raises(ValueError, match=r"6 vectors for 5 products"):
        ProductIndex.build(PRODUCTS[:5], None, "flat", vectors=VECTORS[:6])


QDRANT = pytest.mark.skipif(find_spec("qdrant_client") is None, reason="qdrant-client is not installed")


def test_without_faiss_small_catalogues_are_searched_exactly(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = ProductIndex.build(PRODUCTS, None, "hnsw", vectors=VECTORS)
    assert "pip install rexbert-hf[search]" in caplog.text
    assert recall(index.search(QUERIES, 20), exact(VECTORS, QUERIES, 20)) == 1.0
    binary = ProductIndex.build(PRODUCTS, None, "binary", vectors=VECTORS)
    without = binary.search(QUERIES, 20)
    monkeypatch.undo()
    assert [len(hits) for hits in without] == [20] * len(QUERIES)
    assert recall(without, exact(VECTORS, QUERIES, 20)) >= LEAST_RECALL["binary"]
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.index_state.SMALL_CATALOGUE", 100)
    with pytest.raises(ImportError, match="pip install rexbert-hf"):
        ProductIndex.build(PRODUCTS, None, "hnsw", vectors=VECTORS)


@pytest.mark.parametrize(
    ("package", "options"),
    [
        ("bm25s", {"kind": "flat", "lexical": True}),
        ("rapidfuzz", {"kind": "flat", "lexical": True, "spelling": True}),
        pytest.param("bm25s", {"kind": "flat", "lexical": True, "backend": "qdrant"}, marks=QDRANT),
        pytest.param("rapidfuzz", {"lexical": True, "spelling": True, "backend": "qdrant"}, marks=QDRANT),
        ("faiss", {"kind": "hnsw"}),
        ("faiss", {"kind": "int4"}),
    ],
)
def test_a_missing_package_is_told_before_the_encoding(monkeypatch, package, options):
    """FAISS is known to be needed when the product comes that makes the catalogue a large one."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.index_state.SMALL_CATALOGUE", 100)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.product_rows.BATCH_PRODUCTS", 80)
    model = HashModel()
    read = []
    products = (read.append(product) or product for product in PRODUCTS[:400])
    with pytest.raises(ImportError, match=r"pip install rexbert-hf\[search\]"):
        ProductIndex.build(products, model, **options)
    titles = {product["title"] for product in PRODUCTS}
    assert len(titles & set(model.seen)) == (80 if package == "faiss" else 0)
    assert len(read) <= 160
