"""Qdrant, in memory, behind the same calls: the answers are those of exact search over FAISS's rows."""

from __future__ import annotations

import pickle
import socket
import sqlite3

import numpy as np
import pytest
from index_cases import HashModel, clustered, make_products, rewrite_facts

from rexbert_hf.hub.left_over import LEFT_SECONDS
from rexbert_hf.retrieval.serving import index as index_module
from rexbert_hf.retrieval.serving import qdrant_alias
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.qdrant_index import QdrantIndex

qdrant_client = pytest.importorskip("qdrant_client")
models = pytest.importorskip("qdrant_client.models")
QdrantClient = qdrant_client.QdrantClient
UnexpectedResponse = qdrant_client.http.exceptions.UnexpectedResponse

PRODUCTS = [dict(product, rating=i % 6) for i, product in enumerate(make_products(300))]
OPTIONS = {"filters": ["category", "brand", "price", "in_stock", "locale", "rating"]}
QUERIES = clustered(6, seed=3)
FILTERS = [
    None,
    {"category": "Lamps"},
    {"category": "Sport > Shoes"},
    {"brand": ["Acme", "Bolt"], "price": (10, 100)},
    {"in_stock": True, "price": {"min": 20}},
    {"locale": "de"},
    {"price": [1.0, 2.0, 2.5]},
    {"brand": []},
    {"price": (None, None)},
    {"price": []},
    {"in_stock": 1},
    {"in_stock": [True, False]},
    {"in_stock": (1, None)},
    {"in_stock": 7},
    {"rating": {"min": 3}},
]
WRONG = [
    {"price": {"lte": 15}},
    {"price": {"max": 15, "mix": 1}},
    {"price": {"max": "60"}},
    {"price": None},
    {"price": "10"},
    {"price": (1, 2, 3)},
    {"price": float("nan")},
    {"brand": (1, 2)},
    {"brand": 5},
    {"brand": None},
    {"in_stock": "yes"},
    {"colour": "red"},
    "price < 3",
]


@pytest.fixture(scope="module")
def model():
    return HashModel()


@pytest.fixture
def qdrant(model):
    return ProductIndex.build(PRODUCTS, model, "flat", backend="qdrant", **OPTIONS)


def same(ours: list, theirs: list) -> None:
    """Equal hits; scores to rounding, order where they differ."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert {name for name, _ in mine} == {name for name, _ in other}
        assert dict(mine) == pytest.approx(dict(other), abs=1e-5)


@pytest.mark.parametrize("wanted", FILTERS)
def test_answers_are_those_of_exact_search(qdrant, model, wanted):
    flat = ProductIndex.build(PRODUCTS, model, "flat", **OPTIONS)
    same(qdrant.search(QUERIES, 12, filter=wanted), flat.search(QUERIES, 12, filter=wanted))
    texts = ["thing number 42", "", "number 7"]
    for mode in ("dense", "lexical"):
        same(qdrant.search(texts, 300, wanted, mode), flat.search(texts, 300, wanted, mode))
    ours, theirs = (index.search(texts, 300, wanted, "hybrid") for index in (qdrant, flat))  # ties in another order
    assert [{name for name, _ in hits} for hits in ours] == [{name for name, _ in hits} for hits in theirs]


@pytest.mark.parametrize("wanted", WRONG, ids=str)
def test_a_wrong_filter_is_one_line_and_the_same_one(qdrant, model, wanted):
    flat = ProductIndex.build(PRODUCTS[:30], model, "flat", **OPTIONS)
    said = []
    for index in (flat, qdrant):
        for mode in ("dense", "lexical"):
            with pytest.raises(ValueError, match="filter") as error:
                index.search("thing", 3, wanted, mode)
            said.append(str(error.value))
    assert len(set(said)) == 1
    assert "\n" not in said[0]


def test_a_wrong_value_is_refused_before_anything_changes(qdrant, caplog):
    with pytest.raises(ValueError, match="product p3: brand is 5, but the column holds texts"):
        qdrant.upsert([dict(PRODUCTS[2], price=9_999), dict(PRODUCTS[3], brand=5)])
    assert qdrant.search(QUERIES[:1], 5, filter={"price": (9_000, None)}) == [[]]
    assert qdrant.upsert([dict(PRODUCTS[2], price="on request"), {"product_id": "p3", "title": ""}]) == 0
    assert "1 products have a price that is no number" in caplog.text
    assert "1 products have no text any more and were removed from the index" in caplog.text
    assert "left out" not in caplog.text
    assert "price" not in qdrant.facts(["p2"])[0]
    assert (qdrant.texts(["p3"]), len(qdrant)) == ([None], 299)


def test_changes(qdrant, model):
    flat = ProductIndex.build(PRODUCTS, model, "flat", **OPTIONS)
    model.seen.clear()
    changed = [dict(PRODUCTS[4], title="another"), dict(PRODUCTS[5], price=0.5), {"product_id": "new", "title": "new"}]
    assert qdrant.upsert(changed) == 2
    assert sorted(model.seen) == ["another", "new"]
    flat.upsert(changed)
    assert qdrant.delete(["p6", "unknown"]) == flat.delete(["p6", "unknown"]) == 1
    assert len(qdrant) == len(flat) == 300
    for wanted in (None, {"price": (0, 0.5)}):
        same(qdrant.search(QUERIES, 400, filter=wanted), flat.search(QUERIES, 400, filter=wanted))
    same(qdrant.search(["another new"], 5, mode="lexical"), flat.search(["another new"], 5, mode="lexical"))


@pytest.fixture
def server(monkeypatch):
    """A Qdrant that outlives its indexes, as a server does."""
    client = QdrantClient(location=":memory:")
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda **options: client)
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(client, "create_payload_index", lambda *args, **kwargs: None)  # in memory it only warns
    return "http://qdrant.test"


def test_a_description_opens_it_again(model, server, tmp_path):
    index = ProductIndex.build(PRODUCTS, model, "int8", backend="qdrant", url=server, collection="shop")
    before = index.search(QUERIES, 5)
    index.save(tmp_path / "index")
    same(ProductIndex.load(tmp_path / "index", model).search(QUERIES, 5), before)
    # A build swaps the alias: the old collection serves until then and is gone afterwards.
    for wrong in (HashModel("another"),):
        for _ in range(2):
            with pytest.raises(ValueError, match=r"built with hash"):
                ProductIndex.load(tmp_path / "index", wrong)
    newer = ProductIndex.build(PRODUCTS[:20], model, backend="qdrant", url=server, collection="shop")
    assert len(newer) == 20
    assert len(newer.client.get_collections().collections) == 1
    assert len(ProductIndex.load(tmp_path / "index", model)) == 20


def test_another_models_build_is_refused_wherever_it_is_met(model, server, tmp_path):
    """The same name, built again by another process: no vectors of two models side by side, and none compared."""
    ProductIndex.build(PRODUCTS[:20], model, backend="qdrant", url=server).save(tmp_path / "index")
    reader, writer = ProductIndex.load(tmp_path / "index", model), ProductIndex.load(tmp_path / "index", model)
    same_model = ProductIndex.build(PRODUCTS[:30], model, backend="qdrant", url=server)
    assert len(reader) == 30  # a build with the same model is followed
    assert writer.upsert(PRODUCTS[:2]) == 0
    other = ProductIndex.build(PRODUCTS[:20], HashModel("another"), backend="qdrant", url=server)
    calls = [
        lambda: ProductIndex.load(tmp_path / "index", model),
        lambda: writer.upsert([{"product_id": "new", "title": "new"}]),
        lambda: writer.delete(["p1"]),
        lambda: reader.search(["thing number 3"], 3),
        lambda: reader.search(["thing number 3"], 3, mode="lexical"),
        lambda: reader.texts(["p1"]),
        lambda: reader.ids(),
        lambda: len(same_model),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match=r"'products' in Qdrant .* built again with another model than hash"
        ) as error:
            call()
        assert "\n" not in str(error.value)
    assert len(other) == 20


def test_a_server_says_otherwise_that_a_collection_is_gone():
    """With a status, where the client in memory has words."""
    missing, busy = (UnexpectedResponse(status, "", b"", {}) for status in (404, 503))
    assert (qdrant_alias.is_gone(missing), qdrant_alias.is_gone(busy)) == (True, False)


def test_collections_of_earlier_versions_are_taken(model, server, tmp_path):
    """Their names do not say whose vectors they hold."""
    index = ProductIndex.build(PRODUCTS[:20], model, "flat", backend="qdrant", url=server)
    index.save(tmp_path / "index")
    named = "products-0123456789ab"
    index.client.create_collection(named, vectors_config=models.VectorParams(size=32, distance="Cosine"))
    qdrant_alias.point_to(index.client, "products", named)
    again = ProductIndex.load(tmp_path / "index", model)
    assert again.upsert(PRODUCTS[:3]) == 3
    assert again.search(["thing number 2"], 1)[0][0][0] == "p2"


def test_what_killed_and_failed_builds_left_is_removed(model, server, monkeypatch):
    index = ProductIndex.build(PRODUCTS[:5], model, "flat", backend="qdrant", url=server)
    client = index.client
    there = lambda: {found.name for found in client.get_collections().collections}  # noqa: E731
    (whole,) = there()
    now = qdrant_alias.time.time()
    monkeypatch.setattr(qdrant_alias.time, "time", lambda: now - 2 * LEFT_SECONDS)
    names = [qdrant_alias.new_name(alias, index.identity) for alias in ("products", "products-of-others")]
    monkeypatch.setattr(qdrant_alias.time, "time", lambda: now)
    names += [qdrant_alias.new_name("products", index.identity), "products-0123456789ab"]
    for name in names:  # killed long ago, of another alias, being built now, of an earlier version
        client.create_collection(name, vectors_config=models.VectorParams(size=32, distance="Cosine"))
    monkeypatch.setattr(client, "update_collection_aliases", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ProductIndex.build(PRODUCTS[:5], model, "flat", backend="qdrant", url=server)
    assert there() == {whole, *names[1:]}
    assert len(index) == 5


def test_a_failed_build_leaves_the_old_collection(model, server, tmp_path):
    index = ProductIndex.build(PRODUCTS, model, backend="qdrant", url=server)
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match="product 1 has no product_id"):
        ProductIndex.build([PRODUCTS[0], {"title": "x"}], model, backend="qdrant", url=server)
    assert len(ProductIndex.load(tmp_path / "index", model)) == 300


def test_columns_of_an_earlier_version_are_known(model, server, tmp_path):
    """It wrote their names alone."""
    index = ProductIndex.build(PRODUCTS, model, "flat", backend="qdrant", url=server)
    index.save(tmp_path / "index")
    path = current_version(tmp_path / "index") / "index.json"
    rewrite_facts(path, lambda facts: facts.update(columns=sorted(facts["columns"])))
    again = ProductIndex.load(tmp_path / "index", model)
    flat = ProductIndex.build(PRODUCTS, model, "flat")
    wanted = {"brand": "Acme", "price": (None, 50), "in_stock": True}
    same(again.search(QUERIES, 5, wanted), flat.search(QUERIES, 5, wanted))


class Planted:
    """A pickle that leaves a mark where it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_a_folder_with_planted_pickles_is_not_opened(qdrant, model, tmp_path):
    """The embedded Qdrant reads its points with pickle."""
    folder, mark = tmp_path / "qdrant", tmp_path / "mark"
    embedded = QdrantClient(path=str(folder))
    embedded.create_collection("products", vectors_config=models.VectorParams(size=32, distance="Cosine"))
    embedded.upsert("products", [models.PointStruct(id=1, vector=[1.0] * 32)])
    embedded.close()
    (storage,) = folder.rglob("storage.sqlite")
    with sqlite3.connect(storage) as points:
        points.execute("UPDATE points SET point = ?", (pickle.dumps(Planted(mark)),))
    with pytest.raises(AttributeError):  # what was planted is no point
        QdrantClient(path=str(folder))
    assert mark.exists()
    mark.unlink()
    qdrant.place = str(folder)
    qdrant.save(tmp_path / "index")
    with pytest.raises(ValueError, match="which is no server: build it again or give url=") as error:
        ProductIndex.load(tmp_path / "index", model)
    assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match="path"):
        ProductIndex.load(tmp_path / "index", model, path=folder)
    assert not mark.exists()


def test_a_server_that_a_repository_names_is_not_asked(qdrant, model, monkeypatch, tmp_path):
    qdrant.place = "http://stranger.test"
    qdrant.save(tmp_path / "index")
    monkeypatch.setattr(index_module, "resolve", lambda *args, **kwargs: tmp_path / "index")
    with pytest.raises(ValueError, match=r"at http://stranger\.test, says its repository: give url=") as error:
        ProductIndex.load("user/index", model)
    assert "\n" not in str(error.value)


def test_another_model_is_refused(model):
    index = ProductIndex.build(PRODUCTS[:10], model, backend="qdrant")
    with pytest.raises(ValueError, match="this index was built with hash"):
        index.model = HashModel("another")


def test_a_server_that_is_down_is_one_line(model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"Qdrant at http://127.0.0.1:{port}: .*is it running") as error:
        ProductIndex.build(PRODUCTS[:3], model, backend="qdrant", url=f"http://127.0.0.1:{port}")
    assert "\n" not in str(error.value)


def test_odd_questions(qdrant):
    assert qdrant.texts(["p5", "unknown", "p0"]) == ["thing number 5", None, "thing number 0"]
    assert qdrant.texts([]) == []
    assert len(qdrant.search(QUERIES[:1], 1_000)[0]) == 300
    with pytest.raises(ValueError, match="no column 'colour'"):
        qdrant.search(QUERIES, 3, filter={"colour": "red"})
    with pytest.raises(ValueError, match="not finite"):
        qdrant.search(np.full((1, 32), np.inf, np.float32))
    with pytest.raises(ValueError, match="no 4-bit codes"):
        ProductIndex.build(PRODUCTS[:3], HashModel(), "int4", backend="qdrant")


def test_words_that_another_client_changed_are_read_again(qdrant, model):
    """Told by the number of products."""
    other = QdrantIndex(qdrant.client, qdrant.place, qdrant.collection, qdrant.options, qdrant.identity, model)
    assert other.search("zebra", 3, mode="lexical") == [[]]
    qdrant.upsert([{"product_id": "new", "title": "zebra"}])
    assert [name for name, _ in other.search("zebra", 3, mode="lexical")[0]] == ["new"]
    qdrant.delete(["new"])
    assert other.search("zebra", 3, mode="lexical") == [[]]


@pytest.mark.parametrize("option", [{"vectors": QUERIES}, {"work_dir": "."}])
def test_what_qdrant_does_not_take_is_said(model, option):
    with pytest.raises(ValueError, match="no vectors=, no work_dir="):
        ProductIndex.build(PRODUCTS[:6], model, backend="qdrant", **option)


def test_a_server_is_asked_for_as_many_candidates_as_wanted(model, monkeypatch):
    index = ProductIndex.build(PRODUCTS[:6], model, "binary", backend="qdrant", oversample=7)
    asked, real = [], index.client.query_batch_points
    monkeypatch.setattr(
        index.client, "query_batch_points", lambda name, requests: asked.extend(requests) or real(name, requests)
    )
    index.search(QUERIES[:1], 3)
    assert (asked[0].params.quantization.oversampling, asked[0].params.quantization.rescore) == (7, True)


def test_ids_of_a_column_with_a_gap_are_those_of_qdrant(qdrant):
    qdrant.upsert([{"product_id": 100_001.0, "title": "thing"}])
    assert qdrant.texts([100_001.0]) == ["thing"]
    assert qdrant.delete([100_001.0, 100_002.0]) == 1
